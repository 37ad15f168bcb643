#!/usr/bin/perl
# Setup: a service with two accounts and 205 queued messages; clients of the admin socket that are slow, hostile or not allowed.
# Expectation: every command answers in JSON and for people, and says what is wrong when something is; the hostile ones hurt nobody; no password
# appears anywhere; stop stops everything and sekishod leaves with 0.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use IO::Socket::UNIX;
use JSON::PP;
use POSIX ();
use Test::More;

my $s = Sekisho->new(no_sink => 1, clock => 1);
my ($dir, $me, $ctl) = ($s->{dir}, 'alice@example.test', "$Sekisho::BUILD/sekishoctl");
my $seen = '';
my $time = qr/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[-+]\d\d:\d\d)/;

# Runs a command and checks status and output.
sub says {
	my ($name, $status, $pattern, @args) = @_;
	my $text = $s->ctl(@args);
	$seen .= $text;
	is($? >> 8, $status, "$name: exit status");
	like($text, $pattern, "$name: text");
	return $text;
}

# The same while somebody is hung: lets time pass for the service and for sekishoctl until there is an answer.
sub says_late {
	my ($name, $status, $pattern, @args) = @_;
	local $ENV{SEKISHO_TEST_CLOCK} = $s->clock_file;
	my $out = "$dir/late";
	my $pid = fork // die $!;
	if (!$pid) {
		open STDOUT, '>', $out or die $!;
		open STDERR, '>&', \*STDOUT;
		exec { $ctl } $ctl, "-s", "$dir/admin.sock", @args or POSIX::_exit(127);
	}
	my $got;
	Sekisho::wait_for(60, sub { return 1 if waitpid($pid, POSIX::WNOHANG()) == $pid && ($got = $? >> 8, 1); $s->advance(200); return 0 });
	my $text = do { local $/; open my $f, '<', $out or die $!; <$f> } // '';
	$seen .= $text;
	is($got, $status, "$name: exit status");
	like($text, $pattern, "$name: text");
}

sub keys_of {
	my ($name, $object, @keys) = @_;
	is_deeply([sort keys %{$object // {}}], [sort @keys], "$name: JSON");
}

# Accounts
$s->account($me, 'bob@example.test');
says('account list', 0, qr/\AACCOUNT +CLASS +STATE +CREATED +CHANGED +REASON\nalice\@example\.test +\S+ +\S+ +$time +$time +-\nbob\@/, 'account', 'list');
says('account show', 0, qr/^alice\@example\.test .*$time/m, 'account', 'show', $me);
says('account show, unknown', 1, qr/\Asekishoctl: \S.*\n\z/, 'account', 'show', 'nobody@example.test');
says('account remove, unknown', 1, qr/\Asekishoctl: \S.*\n\z/, 'account', 'remove', 'nobody@example.test');
keys_of('account list', $s->json('account', 'list')->{accounts}[0], qw(account class state reason created changed));
like($s->ctl_with("$Sekisho::PASSWORD\n", 'account', 'add', $me), qr/exist/, 'account add, again');
is($? >> 8, 1, 'is refused');
$s->ctl('account', 'add', 'carol@example.test');
is($? >> 8, 64, 'account add without a password is wrong usage');
$s->ctl_with("$Sekisho::PASSWORD\n", 'account', 'add', 'no address');
is($? >> 8, 1, 'account add of what is no address');

for (['empty', "\n", qr/password is empty/], ['of 257 octets', 'x' x 257 . "\n", qr/longer than 256/], ['of 100 kB', 'x' x 100_000 . "\n", qr/longer than 256/],
	['that is no UTF-8', "\xff" x 10 . "\n", qr/UTF-8/], ['with a NUL', "abcdefgh\0ijk\n", qr/NUL/]) {
	my ($what, $input, $says) = @$_;
	like($s->ctl_with($input, 'account', 'add', 'dora@example.test'), $says, "account add with a password $what says so");
	is($? >> 8, 64, 'and is wrong usage');
}
like($s->ctl_with("short\n", 'account', 'add', 'dora@example.test'), qr/too short.* 8 /, 'a short password is refused by the service');
like($s->ctl_with("$Sekisho::PASSWORD\n", 'account', 'add', '"DORA"@Example.TEST'), qr/\Aadded dora\@example\.test\n\z/, 'a name has one spelling');
says('account remove', 0, qr/\Aremoved dora/, 'account', 'remove', 'dora@EXAMPLE.test');

# Quota
says('quota set', 0, qr/^override +$time by \S.*: club\n.*^recipients +1000 /ms, 'quota', 'set', $me, '1000', '--reason', 'club');
says('quota show', 0, qr/^METER +LIMIT +USED +RESERVED +REMAINING +RESETS AT +AT ONCE +BURST\nrecipients +1000 +0 +0 +1000 +- +100 +100, then 50 in 5 min\nmessages +500 /m, 'quota', 'show', $me);
says('quota set per day', 0, qr/^recipients +2000 /m, 'quota', 'set', $me, '2000/day');
says("quota set $_", 64, qr/limit must be a number.*1000\/day/, 'quota', 'set', $me, $_) for '-1', '12x', '4294967296', '5/week', '';
says('quota default', 0, qr/^recipients +500 /m, 'quota', 'set', $me, 'default');
keys_of('quota show', $s->json('quota', 'show', $me), qw(account class window limit used reserved remaining reset overridden class_limit messages burst start));
says('quota of the account, spelled differently', 0, qr/^account +alice\@example\.test$/m, 'quota', 'show', '"Alice"@EXAMPLE.test');
says('quota set, reason with control characters', 1, qr/"reason" holds control characters/, 'quota', 'set', $me, 5, '--reason', "a\x1b[31mb");
says('quota set, long reason', 1, qr/"reason" is longer than 127/, 'quota', 'set', $me, 5, '--reason', 'x' x 128);
says('quota of no address', 1, qr/user\@example/, 'quota', 'show', 'alice');
says("quota $_->[0] of an unknown account", 1, qr/\Asekishoctl: \S.*\n\z/, 'quota', $_->[0], 'nobody@example.test', @$_[1 .. $#$_])
	for ['show'], ['set', 1000], ['reset'];
says('quota reset', 0, qr/^reset +$time by \S.*: a mistake$/m, 'quota', 'reset', $me, '--reason', 'a mistake');
keys_of('quota show after it', $s->json('quota', 'show', $me), qw(account class window limit used reserved remaining reset overridden class_limit messages burst start
	reset_when reset_by reset_reason));

# Wrong usage
says("unknown option $_", 64, qr/unknown option/, 'status', $_) for '--jsn', '-x';
says('option of another command', 64, qr/usage: sekishoctl queue show ID/, 'queue', 'show', '--reason', 'x', 'y');
says("usage: @$_", 64, qr/sekishoctl .*--help|usage:/, @$_)
	for [], ['nonsense'], ['queue'], ['queue', 'lst'], ['queue', 'show'], ['account', 'add'], ['quota', 'set', $me], ['status', 'x'], ['--socket'], [('x') x 40];

says("did you mean: @{$_->[1]}", 64, qr/did you mean \Q$_->[0]\E\?/, @{$_->[1]}) for ['status', ['sttaus']], ['queue list', ['queue', 'lst']], ['queue audit', ['queu', 'audit']],
	['quota reset', ['quota', 'rest', $me]], ['--reason', ['quota', 'reset', $me, '--reson', 'x']];
says('a group without its command', 64, qr/account what\?/, 'account');
unlike($s->ctl("\x1b[31mred"), qr/\x1b/, 'what was typed does not control the terminal');

for my $words (['account'], ['quota', 'set'], ['queue', 'list'], ['status'], ['stop']) {
	my $name = "@$words";
	like(says("$name --help", 0, qr/\Ausage: /, @$words, '--help'), qr/^  \Q$name\E\b/m, 'tells of it');
	unlike($s->ctl(@$words, '--help'), $words->[0] eq 'stop' ? qr/^  status/m : qr/^  stop/m, 'and of nothing else');
}
is(scalar(() = $s->ctl('--json', @$_) =~ /\n/g), 1, "--json @$_ is one line") for ['status'], ['account', 'list'], ['quota', 'show', $me], ['queue', 'list'];
is(system("$ctl -s $dir/admin.sock account list > /dev/full 2>/dev/null") >> 8, 1, 'output that cannot be written is no success');

# Queue: nobody receives, so everything waits. More than a page of it.
my $c = $s->login($me);
ok($c, 'login') or diag $s->log;
my $failed = 0;
for my $n (1 .. 205) {
	$c = $s->login($me) if $n % 90 == 0;
	$failed++ unless $c->send_mail($me, "r$n\@example.org", 'x') =~ /^250/;
}
is($failed, 0, '205 messages accepted');
my $list = $s->json('queue', 'list')->{messages};
is(scalar @$list, 205, 'queue list pages through all');
is(scalar keys %{{map { $_->{id} => 1 } @$list}}, 205, 'each once');
keys_of('queue list', $list->[0], qw(id state rule lane account from accepted age due size attempts recipients unfinished last_reply));
says('queue list', 0, qr/\AID +STATE +LANE +AGE +DUE .*LAST REPLY\n\S+ +(?:queued|active|deferred) +\S+ +\d+ /, 'queue', 'list');
is(scalar @{$s->json('queue', 'list', '--account', 'bob@example.test')->{messages}}, 0, 'queue list of another account');
like(`$ctl -s $dir/admin.sock queue list | head -n 2`, qr/\AID.*\n\S+.*\n\z/, 'queue list into head');
my $id = $list->[0]{id};
says('queue show', 0, qr/^id +\Q$id\E\n.*^RECIPIENT +STATE.*\@example\.org/ms, 'queue', 'show', $id);
keys_of('queue show', $s->json('queue', 'show', $id), qw(id state rule lane account from accepted age due size attempts recipients unfinished last_reply
	finished client_ip client_port ehlo rcpt holds));
says('queue show, no id', 1, qr/no message id; .*queue list/, 'queue', 'show', 'nonsense');
(my $other = $id) =~ s/(\w)(\w)\z/$2$1/;
says('queue show, unknown', 1, qr/does not know|no message id/, 'queue', 'show', $other) if $other ne $id;
says('queue audit', 0, qr/^queued +205\n.*^conserved/ms, 'queue', 'audit');
ok($s->json('queue', 'audit')->{conserved}, 'queue audit: JSON');

# Status
says('status', 0, qr/\Anothing needs attention\n.*^PROCESS +NO +LANE +PID +STATE +UPTIME +SINCE +RESTARTS +LOG +LAYERS\n.*^queue +0 +- +\d+ +up +\d.* $time +0 +.*\S.*^LANE +MESSAGES +RECIPIENTS\n.*^accepted +205$/ms, 'status');
my $status = $s->json('status');
keys_of('status', $status, qw(now processes queue configuration));
keys_of('a process', $status->{processes}[0], qw(role index lane pid state since uptime restarts log load layers));
ok(exists $status->{queue}{$_}, "status: $_") for qw(lanes refusing refusing_why ledger_held ledger_time accepted in_flight oldest);

# The manual and --help tell of the same commands.
my $help = says('--help', 0, qr/\Ausage: /, '--help');
open my $page, '<', "$Sekisho::TOP/man/sekishoctl.8" or die $!;
my %manual = map { /^\.It Ic ([a-z]+(?: [a-z]+){0,2})/ ? ($1 => 1) : () } <$page>;
my %helped = map { /^  (account identity [a-z]+|(?:account|quota|queue|sender|session|site) [a-z]+|[a-z]+)\b.* {2}/ ? ($1 => 1) : () } split /\n/, $help;
is_deeply([sort keys %manual], [sort keys %helped], 'sekishoctl(8) and --help list the same commands');

# And sekisho-admin(8) of the same requests, arguments and roles as the table that serves them.
{
	my $r = IO::Socket::UNIX->new(Peer => "$dir/admin.sock");
	syswrite $r, qq({"id":[1],"version":1,"command":"help"}\n);
	my $answer = decode_json(scalar <$r>);
	is_deeply([$answer->{id}, @{$answer->{result}}{qw(version role)}], [[1], 1, 'admin'], 'help says which version and which role');
	my @served = map { my $c = $_; join ' ', $c->{role}, $c->{command}, map { my $t = "$_->{name}=$_->{type}"; $_->{needed} ? $t : "[$t]" } @{$c->{arguments}} }
		@{$answer->{result}{commands}};
	open my $admin_page, '<', "$Sekisho::TOP/man/sekisho-admin.8" or die $!;
	my @described = map { /^\.It (look|operate|admin) (.*)$/ ? "$1 $2" : () } <$admin_page>;
	is_deeply([sort @described], [sort @served], 'sekisho-admin(8) and the table agree') or diag join "\n", map { ".It $_" } @served;
	syswrite $r, qq({"version":2,"command":"status"}\n);
	is(decode_json(scalar <$r>)->{error}{code}, 'version', 'another version is refused');
	my $source = do { local (@ARGV, $/) = "$Sekisho::TOP/admin/ctl_commands.c"; <> };
	my %known = map { $_->{command} => 1 } @{$answer->{result}{commands}};
	is_deeply([grep { !$known{$_} } $source =~ /\.command = "([^"]+)"/g], [], 'sekishoctl asks for what there is');
}

# Slow and hostile clients
sub raw { IO::Socket::UNIX->new(Peer => "$dir/admin.sock") }
my %garbage = ('no JSON' => "garbage\n", 'no object' => "[]\n", 'no command' => "{}\n", 'an unknown command' => qq({"command":"x"}\n),
	'a wrong type' => qq({"command":["status"]}\n), 'octets' => join('', map { chr } 0 .. 9, 11 .. 255) . "\n", 'an empty line' => "\n",
	'a key twice' => qq({"command":"status","command":"status"}\n), 'an argument it does not know' => qq({"command":"status","x":1}\n),
	'an account that is a number' => qq({"command":"account.show","account":5}\n), 'depth' => '[' x 60000 . "\n", 'a number too large' => qq({"command":"quota.set","account":"$me","limit":1e99}\n));
for my $name (sort keys %garbage) {
	my $g = raw();
	syswrite $g, $garbage{$name};
	my $line = <$g> // '';
	ok(eval { decode_json($line)->{ok} ? 0 : decode_json($line)->{error}{text} }, "$name is answered with an error") or diag $line;
	syswrite $g, qq({"id":7,"command":"quota.show","account":"$me"}\n);
	is(eval { decode_json(scalar <$g>)->{id} }, 7, 'and the next request is served');
}
{
	local $SIG{PIPE} = 'IGNORE';
	my $g = raw();
	my $at = 0;
	while ($at < 1 << 20) {
		my $n = syswrite $g, 'x' x 65536;
		last unless $n;
		$at += $n;
	}
	my $line = <$g>;
	ok(!defined $line || $line =~ /longer than 64 KiB/, 'a line of 1 MiB ends the connection');
}
{
	my $g = raw();
	syswrite $g, qq({"id":1,"command":"status"}\n{"id":2,"command":"account.list"}\n{"id":3);
	shutdown $g, 1;
	my @lines = <$g>;
	is_deeply([map { eval { decode_json($_)->{id} } } @lines], [1, 2], 'a client that has said all it wants gets its answers, and an end');
}
my $half = raw();
syswrite $half, '{"command":"sta';
my $gone = raw();
syswrite $gone, qq({"command":"queue.audit"}\n) x 20;
close $gone;
says('a half line and an early leaver', 0, qr/^PROCESS/m, 'status');
my @many = grep { $_ } map { raw() } 1 .. 100;
cmp_ok(scalar @many, '>', 50, 'many connections');
says('and among silent ones the NOC is served', 0, qr/^PROCESS/m, 'status');
ok($s->login($me), 'while they are there, mail is taken');
@many = ();
ok(Sekisho::wait_for(10, sub { $s->ctl('status'); $? == 0 }), 'and when they are gone, the NOC is served again');
is($s->json('status')->{processes}[$_]{restarts}, 0, 'no restart') for 0 .. $#{$status->{processes}};

# Hung processes: each answer in bounded time, and with a reason.
{
	my $start = $s->now;
	my ($queue) = $s->pids('sekisho-queue');
	kill 'STOP', $queue;
	says_late('status while the queue hangs', 0, qr/^QUEUE +the queue does not answer$/m, 'status');
	says_late('quota set while the queue hangs', 69, qr/no answer within \d+ s.*sekishoctl status/, 'quota', 'set', $me, 77);
	cmp_ok($s->now - $start, '<', 25000, 'both in time');
	kill 'CONT', $queue;
	ok(Sekisho::wait_for(10, sub { $s->json('queue', 'list') }), 'and it goes on');
	my ($auth) = $s->pids('sekisho-auth');
	kill 'STOP', $auth;
	says_late('quota set while auth hangs', 69, qr/no answer within \d+ s/, 'quota', 'set', $me, 78);
	kill 'CONT', $auth;
	ok(Sekisho::wait_for(10, sub { $s->json('account', 'list') }), 'it goes on, too');
	isnt($s->json('quota', 'show', $me)->{limit}, 78, 'what was given up is not done later');
	my ($admin) = $s->pids('sekisho-admin');
	kill 'STOP', $admin;
	says_late('status while admin hangs', 69, qr/no answer from \S+ within \d+ s; is sekisho-admin stopped/, 'status');
	kill 'CONT', $admin;
}

# Everything that was changed is on record, with who, what and how it ended.
like($s->log, qr/ - admin command=quota\.set by="\S+ \(uid \d+\)" result=done account="alice\@example\.test" limit="1000" reason="club"$/m, 'quota set is on record') if !$>;
like($s->log, qr/ - admin command=quota\.reset by="[^"]+" result=not-found account="nobody\@example\.test"$/m, 'what was refused, too');
like($s->log, qr/ - admin command=account\.add by="[^"]+" result=done account="bob\@example\.test"$/m, 'accounts, without the password');
like($s->log, qr/ - admin command=quota\.set by="[^"]+" result=unavailable .*limit="78"/m, 'what nobody answered, too');

# Who may
SKIP: {
	skip 'needs root', 2 if $>;
	my $text = `setpriv --reuid 12345 --regid 12345 --clear-groups $ctl -s $dir/admin.sock status 2>&1`;
	is($? >> 8, 77, 'a stranger is not served');
	like($text, qr/\Asekishoctl: uid 12345 has no role in this service; .*admin\.look/, 'and told what to do');
}
like(`$ctl -s $dir/none.sock status 2>&1`, qr/cannot reach the service at \S+none\.sock: .*is sekishod running/, 'no service');
is($? >> 8, 69, 'exit status 69');

# The end
my @pids = map { $_->{pid} } @{$status->{processes}};
says('stop', 0, qr/\Astopped\n\z/, 'stop');
is(scalar(grep { kill 0, $_ } @pids), 0, 'which returns when all of it is down');
ok(Sekisho::wait_for(20, sub { waitpid($s->{daemon}, 1) > 0 }), 'sekishod ends');
is($?, 0, 'with 0');
delete $s->{daemon};
is(scalar(grep { kill 0, $_ } @pids), 0, 'and everybody with it');
unlike($seen . $s->log, qr/\Q$Sekisho::PASSWORD\E|PRIVATE KEY/, 'no secret in output or log');
done_testing;

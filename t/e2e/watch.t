#!/usr/bin/perl
# Setup: a service with two accounts; watchers with filters, one that never reads, one in a pipe; roles for two users and a group.
# Expectation: each watcher sees what its filter names and nothing else, a stalled one costs nobody anything and is told what it lost; log levels and
# reload do what they say; nobody does more than the role allows, and everybody is told which role it takes.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use IO::Socket::UNIX;
use JSON::PP;
use POSIX ();
use Test::More;

my ($alice, $bob) = ('alice@example.test', 'bob@example.test');
my $s = Sekisho->new(conf => "msa: { processes: 2 }\n$Sekisho::UNLIMITED", clock => 1);
my ($dir, $ctl) = ($s->{dir}, "$Sekisho::BUILD/sekishoctl");
my $stamp = qr/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[-+]\d\d:\d\d/;
$s->account($alice, $bob);

# A watcher in a child, its output in a file.
my $number = 0;
sub watch {
	my (@args) = @_;
	my $out = "$dir/watch" . ++$number;
	my $pid = fork // die $!;
	if (!$pid) {
		open STDOUT, '>', $out or die $!;
		open STDERR, '>&', \*STDOUT;
		exec { $ctl } $ctl, '-s', "$dir/admin.sock", @args or POSIX::_exit(127);
	}
	return { pid => $pid, out => $out };
}
sub seen { local $/; open my $f, '<', $_[0]{out} or return ''; return <$f> // '' }
sub sees { my ($w, $pattern) = @_; return Sekisho::wait_for(20, sub { seen($w) =~ $pattern }) }
sub ends { my ($w, $signal) = @_; kill $signal, $w->{pid}; waitpid $w->{pid}, 0; return $? }

# Waits until each is there: a reset of a quota is an event that every one of them sees.
sub await_watchers {
	for my $w (@_) {
		Sekisho::wait_for(20, sub { $s->ctl('quota', 'reset', $alice, '--reason', "mark $w->{pid}"); seen($w) =~ /mark $w->{pid}/ }) or diag "no mark in $w->{out}: " . seen($w);
	}
}

{
	my $all = watch('watch');
	my $json = watch('watch', '--json');
	my $of_alice = watch('watch', '--account', $alice);
	await_watchers($all, $json, $of_alice);
	my $of_relay = watch('watch', '--process', 'relay.0');
	my $of_event = watch('watch', '--event', 'accepted,delivered');
	ok(sees($all, qr/^$stamp sekisho-admin\[\d+\] info - admin command=quota\.reset by=/m), 'a watcher sees events as the log has them');
	for my $w ($of_relay, $of_event) {
		Sekisho::wait_for(20, sub { my $c = $s->login($bob); $c->send_mail($bob, 'x@example.org', 'x'); seen($w) =~ /\S/ });
	}
	my ($a, $b) = ($s->login($alice), $s->login($bob));
	my ($id_a) = $a->send_mail($alice, 'one@example.org', 'x') =~ /id[= ](\w+)/i;
	my ($id_b) = $b->send_mail($bob, 'two@example.org', 'x') =~ /id[= ](\w+)/i;
	ok(sees($all, qr/attempt to=<two\@example\.org>/), 'of every process');
	ok(sees($of_alice, qr/attempt to=<one\@example\.org>/), 'a watcher of an account sees its mail at the relay, where no line names it');
	unlike(seen($of_alice), qr/bob\@|two\@example/, 'and of nobody else');
	ok(sees($of_relay, qr/sekisho-relay\[\d+\] info \S+ attempt to=<two\@/), 'a watcher of a process');
	unlike(seen($of_relay), qr/^\S+ (?!sekisho-relay)\S+\[/m, 'sees no other');
	ok(sees($of_event, qr/ accepted id=\S+ account=bob/), 'a watcher of events');
	unlike(seen($of_event), qr/^\S+ \S+ \S+ \S+ (?!accepted|delivered)/m, 'sees no other');
	ok(sees($json, qr/two\@example/), 'JSON has a line each');
	my @bad = grep { !ref(eval { decode_json($_)->{event}{fields} }) } split /\n/, seen($json);
	is_deeply(\@bad, [], 'with its fields');
	my ($one) = grep { $_->{event} eq 'admin' } map { decode_json($_)->{event} } split /\n/, seen($json);
	is($one->{fields}{command}, 'quota.reset', 'by name');
	is_deeply([@$one{qw(process level id)}], ['admin.0', 'info', '-'], 'and the line\'s head');
	# A process that comes back is watched again.
	my ($relay) = $s->pids('sekisho-relay');
	kill 'KILL', $relay;
	ok(sees($all, qr/sekishod\[\d+\] warn - process down name=relay/), 'sekishod is watched, too');
	my ($old, $other) = $s->pids('sekisho-msa');
	my $new;
	kill 'KILL', $old;
	ok(Sekisho::wait_for(20, sub { ($new) = grep { $_ != $old && $_ != $other } $s->pids('sekisho-msa') }), 'msa is back');
	ok(Sekisho::wait_for(20, sub { $s->login($alice); seen($all) =~ /sekisho-msa\[$new\] / }), 'and a process that has been restarted');
	is(ends($all, 'INT'), 0, 'Ctrl-C ends it well');
	like(seen($all), qr/\n\z/, 'with a whole line');
	is(ends($_, 'TERM'), 0, 'as does SIGTERM') for $json, $of_alice, $of_relay, $of_event;
}
like(`timeout 60 sh -c '$ctl -s $dir/admin.sock watch | head -n 1 & while kill -0 \$! 2>/dev/null; do $ctl -s $dir/admin.sock quota reset $alice >/dev/null; done; wait'`,
	qr/\A$stamp \S+\[\d+\] \S+ .*\n\z/, 'watch into head');

# One that never reads.
sub raw {
	my ($line) = @_;
	my $socket = IO::Socket::UNIX->new(Peer => "$dir/admin.sock") or return;
	syswrite $socket, "$line\n";
	return $socket;
}
{
	my $stalled = raw('{"command":"watch"}');
	like(scalar <$stalled>, qr/"watching":true/, 'a watcher that will not read');
	my $c = $s->login($alice);
	my ($sent, $start) = (0, time);
	# A line is about 500 octets of JSON: more than socket and watcher hold together.
	for my $round (1 .. 2000) {
		$c->raw("MAIL FROM:<mallory$round\@example.org>\r\nRSET\r\n");
		$c->reply, $c->reply;
		$sent++;
		$c = $s->login($alice) if $sent % 8 == 0;
		last if $sent >= 700;
	}
	cmp_ok(time - $start, '<', 60, 'costs the others nothing');
	is(scalar(grep { $_->{restarts} > 1 } @{$s->json('status')->{processes}}), 0, 'nobody falls');
	my $lost = 0;
	$stalled->blocking(0);
	my $got = '';
	Sekisho::wait_for(20, sub {
		while (sysread $stalled, my $more, 65536) { $got .= $more }
		$got =~ /"lost":(\d+)/ and $lost = $1;
		$s->ctl('quota', 'reset', $alice);
		return $lost;
	});
	cmp_ok($lost, '>', 0, 'and it is told how many lines it lost');
	my @bad = grep { !ref eval { decode_json($_) } } $got =~ /^(.*)\n/mg;
	is_deeply(\@bad, [], 'what it gets are whole lines');
}
{
	my @many = map { raw('{"command":"watch"}') } 1 .. 17;
	my @said = map { scalar <$_> } @many;
	is(scalar(grep { /watching/ } @said), 16, 'sixteen may watch');
	like($said[16], qr/"code":"busy"/, 'the next is told');
	ok($s->json('status'), 'while they do, requests are answered');
}
ok(Sekisho::wait_for(10, sub { my $w = raw('{"command":"watch"}'); <$w> =~ /watching/ }), 'their places are free again');

# Levels
sub level { my ($name) = @_; my ($one) = grep { $_->{process} eq $name } @{$s->json('log')->{levels}}; return $one }
like($s->ctl('log'), qr/\APROCESS +LEVEL +UNTIL\nsekishod +info +-\nkeys\.0 +info +-\n/, 'log shows the levels');
like($s->ctl('log', 'msa.1', 'debug', '--for', '10min'), qr/\Amsa\.1: level debug, 1 processes, until $stamp\n\z/, 'log sets one for a time');
is(level('msa.1')->{level}, 'debug', 'it is set');
like(level('msa.1')->{until}, qr/^$stamp$/, 'until then');
is(level('msa.0')->{level}, 'info', 'of that process alone');
$s->advance(11 * 60 * 1000);
ok(Sekisho::wait_for(20, sub { level('msa.1')->{level} eq 'info' && !defined level('msa.1')->{until} }), 'and falls back');
like($s->ctl('log', 'all', 'warn'), qr/\Aall: level warn, \d+ processes, until the next restart or reload\n/, 'all processes');
is(scalar(grep { $_->{level} ne 'warn' } @{$s->json('log')->{levels}}), 0, 'have it');
$s->ctl('log', 'all', 'info');
for (['msa', 64, qr/usage: sekishoctl log/], ['mta debug', 1, qr/"process" is no process; .*msa\.0/], ['msa loud', 1, qr/"level" is no level; they are error, warn/],
	['msa.77 debug', 1, qr/no such process runs/], ['msa debug --for soon', 1, qr/"for" is no time; write it like/]) {
	my ($args, $status, $says) = @$_;
	like($s->ctl('log', split / /, $args), $says, "log $args");
	is($? >> 8, $status, 'exit status');
}

# Reload
{
	is($s->ctl('reload'), "generation 2 is in force\n", 'reload');
	$s->{extra} = "msa: { processes: 2 }\nlimits: { recipients: many }\nrelay: { prot: 25 }\n";
	$s->write_conf;
	my $said = $s->ctl('reload');
	is($? >> 8, 1, 'a bad file is refused');
	like($said, qr/sekisho\.yaml:\d+:\d+: limits\.recipients: /, 'with each mistake');
	like($said, qr/sekisho\.yaml:\d+:\d+: relay\.prot: .*port/, 'where it is');
	like($said, qr/^sekishoctl: the configuration is refused, and generation 2 stays in force$/m, 'and what holds');
	my ($error) = map { eval { decode_json($_) } } grep { /^\{/ } split /\n/, $s->ctl('--json', 'reload');
	is(scalar @{$error->{mistakes} // []}, 2, 'JSON lists them') or diag explain $error;
	like($s->ctl('status'), qr/^configuration +generation 2 of \S+sekisho\.yaml, since $stamp$/m, 'status has the generation');
}

# Roles
SKIP: {
	skip 'needs root for other users', 23 if $>;
	my ($viewer, $operator) = ('games', 'mail');
	my ($uid_v, $uid_o) = map { scalar getpwnam $_ } $viewer, $operator;
	my $gid = getgrnam 'news';
	skip 'no such users here', 23 unless defined $uid_v && defined $uid_o && defined $gid;
	my $as = sub {
		my ($uid, $groups, @args) = @_;
		my $text = join ' ', map { "'$_'" } @args;
		my $said = `setpriv --reuid $uid --regid $uid --groups $groups $ctl -s $dir/admin.sock $text 2>&1`;
		return ($? >> 8, $said);
	};
	my ($status, $said) = $as->($uid_v, $uid_v, 'status');
	is($status, 77, 'who has no role is not served');
	like($said, qr/uid $uid_v has no role in this service; root can give one: .*admin\.look, admin\.operate or admin\.admin/, 'and told how to get one');
	$s->{extra} = "msa: { processes: 2 }\nlimits: { recipients: 400 }\n";
	$s->write_conf;
	open my $f, '<', "$dir/sekisho.yaml" or die $!;
	my $yaml = do { local $/; <$f> };
	$yaml =~ s/admin: \{ socket: (\S+) \}/admin: { socket: $1, look: [$viewer], operate: [$operator], admin: ["\@news"] }/ or die $yaml;
	open $f, '>', "$dir/sekisho.yaml" or die $!;
	print $f $yaml;
	close $f;
	is($s->ctl('reload'), "generation 3 is in force\n", 'roles by a reload');
	($status, $said) = $as->($uid_v, $uid_v, 'quota', 'show', $alice);
	is($status, 0, 'look may look') or diag $said;
	($status, $said) = $as->($uid_v, $uid_v, 'quota', 'set', $alice, 7);
	is($status, 77, 'but not change');
	my @changing = (
		['site', 'suspend', 'example.org', '--for', '1h'], ['site', 'resume', 'example.org'], ['site', 'limit', 'example.org', '--connections', 1, '--for', '1h'],
		['site', 'limit', 'example.org', '--clear'], ['queue', 'hold', '--account', $alice], ['queue', 'release', '--account', $alice], ['queue', 'flush', '--all'],
		['queue', 'bounce', '--account', $alice, '--yes'], ['queue', 'remove', '--account', $alice, '--yes'], ['queue', 'reroute', '--account', $alice, '--to', 'retry'],
		['queue', 'reroute', '--account', $alice, '--to', 'relay.example:25', '--for', '1h'], ['queue', 'remove', '--account', $alice, '--dry-run']);
	my @let = grep { ($as->($uid_v, $uid_v, @$_))[0] != 77 } @changing;
	is_deeply(\@let, [], 'no site and nothing in the queue');
	my $r = IO::Socket::UNIX->new(Peer => "$dir/admin.sock");
	syswrite $r, qq({"command":"help"}\n);
	my %tried = map { ("$_->[0].$_->[1]" => 1) } @changing, ['site', 'unlimit']; # which is limit --clear
	is_deeply([grep { !$tried{$_} } map { $_->{command} } grep { $_->{role} ne 'look' && $_->{command} =~ /^(?:queue|site)\./ } @{ decode_json(scalar <$r>)->{result}{commands} }],
		[], 'which was all that there is');
	is($s->ctl('queue', 'holds') =~ tr/\n//, 1, 'and nothing is in force');
	like($said, qr/quota\.set takes the role operate, and you have look; who has it: root, admin\.operate \($operator\), admin\.admin \(\@news\)/, 'it says which role it takes and who has it');
	($status, $said) = $as->($uid_o, $uid_o, 'quota', 'set', $alice, 7);
	is($status, 0, 'operate may change') or diag $said;
	($status, $said) = $as->($uid_o, $uid_o, 'account', 'remove', $bob);
	is($status, 77, 'but no account');
	($status, $said) = $as->(12345, $gid, 'account', 'suspend', $bob);
	is($status, 0, 'a member of the group may') or diag $said;
	($status, $said) = $as->(12345, 12346, 'status');
	is($status, 77, 'who is no member may not');
	my ($of_look) = $as->($uid_v, $uid_v, 'log');
	is($of_look, 0, 'look sees the levels');
	like($s->log, qr/command=quota\.set by="$operator \(uid $uid_o\)" result=done /, 'who did it is on record by name');
	like($s->log, qr/command=quota\.set by="$viewer \(uid $uid_v\)" result=denied /, 'who tried, too');
	like($s->log, qr/command=account\.suspend by="uid 12345" result=done /, 'a member of a group by number');
	# A watcher that loses its role loses its events.
	my $pid = fork // die $!;
	if (!$pid) {
		open $_, '>', '/dev/null' for \*STDOUT, \*STDERR;
		# Not through a shell: the checkout may be where only root may look.
		exec 'setpriv', '--reuid', $uid_v, '--regid', $uid_v, '--clear-groups', $ctl, '-s', "$dir/admin.sock", 'watch' or POSIX::_exit(127);
	}
	Sekisho::wait_for(10, sub { open my $g, '<', "/proc/$pid/comm" or return 0; <$g> =~ /sekishoctl/ });
	$yaml =~ s/look: \[$viewer\]/look: []/;
	open $f, '>', "$dir/sekisho.yaml" or die $!;
	print $f $yaml;
	close $f;
	is($s->ctl('reload'), "generation 4 is in force\n", 'a role is taken away');
	ok(Sekisho::wait_for(20, sub { waitpid($pid, POSIX::WNOHANG()) == $pid }), 'who watched by it watches no more');
	ok($? >> 8 == 69 || $? >> 8 == 77, 'and is told');
}
done_testing;

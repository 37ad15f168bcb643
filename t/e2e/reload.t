#!/usr/bin/perl
# Setup: a running service whose configuration is changed, well and badly, while sessions are open, mail is on its way, and processes die.
# Expectation: a good file comes into force as a whole, everywhere, and no session notices; a bad one changes nothing and is told with every mistake; what
# is in force is what the next process starts with.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use Test::More;

my $me = 'alice@example.test';
sub slurp { local $/; open my $f, '<', $_[0] or return ''; return <$f> // '' }
sub descriptors { my @list = glob "/proc/$_[0]/fd/*"; return scalar @list }

# The line with the next result of a reload.
sub reload {
	my ($s) = @_;
	my $at = length $s->log;
	kill 'HUP', $s->{daemon};
	my $line;
	Sekisho::wait_for(30, sub { ($line) = substr($s->log, $at) =~ /^\S+ sekishod\[\d+\] \S+ - reload (.*)$/m }) or die "no reload:\n" . $s->log;
	return $line;
}

sub rewrite {
	my ($s, $extra, $edit) = @_;
	$s->{extra} = $extra;
	$s->write_conf;
	return unless $edit;
	my $text = slurp("$s->{dir}/sekisho.yaml");
	$edit->($text);
	open my $f, '>', "$s->{dir}/sekisho.yaml" or die $!;
	print $f $text;
	close $f;
}


sub certificate {
	my ($s, $name, $days) = @_;
	system("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days " . ($days // 30)
		. " -subj /CN=$name -keyout $s->{dir}/key.pem -out $s->{dir}/cert.pem 2>/dev/null") == 0 or die;
}

# Whose certificate a new client is shown.
sub shown {
	my ($s) = @_;
	my $c = $s->connect('submissions') or return 'nobody';
	return $c->{s}->peer_certificate('cn');
}

sub generation { return $_[0]->json('status')->{configuration}{generation} }

# Everything that a process of the service holds: descriptors, and its memory in KiB.
sub holding {
	my ($s) = @_;
	my ($fds, $rss) = (0, 0);
	for my $pid ($s->{daemon}, $s->pids) {
		$fds += descriptors($pid);
		$rss += slurp("/proc/$pid/status") =~ /^RssAnon:\s+(\d+)/m ? $1 : 0;
	}
	return ($fds, $rss);
}

my $s = Sekisho->new(conf => "msa: { processes: 2 }\n");
$s->account($me);

# Nothing changed.
is(generation($s), 1, 'the first generation');
my $c = $s->login($me);
like(reload($s), qr/^done generation=2 file=\Q$s->{dir}\E/, 'an unchanged file is a new generation');
my $state = $s->json('status')->{configuration};
is($state->{generation}, 2, 'status shows which');
is($state->{file}, "$s->{dir}/sekisho.yaml", 'from where');
ok($state->{loaded} && $state->{certificate_expires}, 'since when, and how long its certificate lasts');
like($c->send_mail($me, 'x@example.org', 'over'), qr/^250/, 'the open session goes on');
ok($s->login($me), 'and new ones come');

# Limits, class, contact: from the next command on, in an open session.
rewrite($s, "msa: { processes: 2 }\nlimits: { recipients: 2 }\nquota: { recipients: 7/day }\n");
$c->cmd("MAIL FROM:<$me>");
$c->cmd('RCPT TO:<one@example.org>');
like(reload($s), qr/^done generation=3/, 'other limits');
$c->cmd('RCPT TO:<two@example.org>');
like($c->cmd('RCPT TO:<three@example.org>'), qr/^452/, 'hold in the open session');
is($s->json('quota', 'show', $me)->{limit}, 7, 'and in the queue');
$c->cmd('RSET');

# A message under way is judged by what held when it began.
$c->cmd("MAIL FROM:<$me>");
$c->cmd('RCPT TO:<one@example.org>');
$c->cmd('DATA');
rewrite($s, "msa: { processes: 2 }\nlimits: { message_size: 1KiB, header_size: 1KiB }\n");
like(reload($s), qr/^done/, 'a smaller size, while data are under way');
$c->raw("From: <$me>\r\nSubject: large\r\n\r\n" . "0123456789\r\n" x 500 . ".\r\n");
like($c->reply, qr/^250/, 'does not concern them');
like($c->send_mail($me, 'x@example.org', "0123456789\r\n" x 500), qr/^552/, 'but the next');

# Time.
like($s->log, qr/^\S+[+-]\d\d:\d\d sekishod\[\d+\] info - reload/m, 'times have a zone');
my $zone = Sekisho->new(conf => "zone: Asia/Kathmandu\n");
$zone->account($me);
$zone->login($me)->send_mail($me, 'x@example.org', 'dated');
my @elsewhere = grep { /^\S+ sekisho-\w+\[/ && !/\+05:45 / } split /\n/, $zone->log;
is_deeply(\@elsewhere, [], 'and it is the configured one in every process');
ok(Sekisho::wait_for(20, sub { grep { /^\s.* \+0545\r?$/m } $zone->delivered }), 'also in Received');
undef $zone;

# Listeners.
my ($old, $new) = ($s->{ports}{submission}, Sekisho::free_port());
my $waiting = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $old) or die;
$s->{ports}{submission} = $new;
rewrite($s, "msa: { processes: 2 }\n");
like(reload($s), qr/^done/, 'another port');
ok($s->login($me), 'is listened on');
like($c->cmd('NOOP'), qr/^250/, 'the session of the old one goes on');
ok(Sekisho::wait_for(10, sub { !IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $old) }), 'which is closed');
rewrite($s, "msa: { processes: 2 }\n", sub { $_[0] =~ s/"127.0.0.1:$new"/"127.0.0.1:$new", "127.0.0.1:$old"/ });
like(reload($s), qr/^done/, 'and can be opened again');
ok(IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $_), 'beside the other') for $old, $new;

# Certificate and key, at the same names.
is(shown($s), 'localhost', 'a certificate');
my $halfway = $s->connect or die;
$halfway->reply;
$halfway->cmd('EHLO half.example.test');
like($halfway->cmd('STARTTLS'), qr/^220/, 'a handshake begins');
certificate($s, 'renewed');
like(reload($s), qr/^done/, 'another one in the same file');
is(shown($s), 'renewed', 'is shown to new clients');
ok($halfway->tls, 'a handshake that had begun ends well');
is($halfway->{s}->peer_certificate('cn'), 'localhost', 'with the certificate it began with');
like($c->send_mail($me, 'x@example.org', 'under the old one'), qr/^250/, 'old sessions live');
for (1 .. 20) { certificate($s, "quick$_") if $_ % 7 == 0; reload($s) }
is(shown($s), 'quick14', 'after many reloads it is the last one');

# New files without a reload: a process that has to be started again still gets what is in force.
certificate($s, 'early');
for my $name ('sekisho-keys', 'sekisho-msa') {
	my @old = $s->pids($name);
	kill 'KILL', @old;
	ok(Sekisho::wait_for(20, sub { my $status = $s->json('status'); my %is = map { $_ => 1 } $s->pids($name); $status && !grep({ $is{$_} } @old)
		&& !grep({ $_->{state} ne 'up' } @{$status->{processes}}) }), "$name is killed");
	is(shown($s), 'quick14', 'and shows and signs as before');
}

# Routes: to another host, with mail that waited.
my $other = Sekisho->new(no_start => 1);
rewrite($s, "msa: { processes: 2 }\nroutes: { \"*\": \"127.0.0.1:$other->{ports}{sink}\" }\n");
like(reload($s), qr/^done/, 'another route');
$c = $s->login($me);
like($c->send_mail($me, 'x@example.org', 'by the new road'), qr/^250/, 'takes mail');
ok(Sekisho::wait_for(20, sub { grep { /by the new road/ } $other->delivered }), 'there');
ok(!(grep { /by the new road/ } $s->delivered), 'and not to the old place');

# Bad files change nothing and say why; all mistakes at once.
my $before = generation($s);
my $good = $s->{extra};
my @bad = (
	['a typing error', "limits: { recipient: 9 }\n", undef, qr/sekisho\.yaml:\d+:\d+: limits\.recipient: unknown key; did you mean limits\.recipients\?/],
	['no YAML', "limits: {\n", undef, qr/yaml: /],
	['several mistakes', "limits: { recipients: none, messages: 0 }\n", undef, qr/limits\.recipients: .* \| .*limits\.messages: /],
	['what takes a restart', '', sub { $_[0] =~ s{spool: \S+}{spool: $s->{dir}/elsewhere}; $_[0] =~ s/^hostname: .*/hostname: other.example.test/m },
		qr/hostname: is "mail\.example\.test" until a restart; .* \| .*spool: is .* until a restart/],
	['a missing certificate', '', sub { $_[0] =~ s{cert\.pem}{none.pem} }, qr/tls\.certificate: cannot open .*none\.pem/],
	['a key of another certificate', '', sub { $_[0] =~ s{key: \S+/key\.pem}{key: $other->{dir}/key.pem} }, qr/the private key does not belong/],
	['a port in use', '', sub { $_[0] =~ s{127\.0\.0\.1:$new"}{127.0.0.1:$other->{ports}{sink}"} }, qr/listen\.submission: .* is in use/],
	['a port that overlaps', '', sub { $_[0] =~ s{"127\.0\.0\.1:$new"}{"0.0.0.0:$new"} }, qr/overlaps a listener in force/],
	['an unknown zone', "zone: Asia/Edo\n", undef, qr/zone: .*Asia\/Edo.*(?:unknown|until a restart)/],
	['an unknown user', "admin: { socket: $s->{dir}/admin.sock, look: [nobody-of-this-name] }\n", sub { $_[0] =~ s{^admin: \{ socket: \S+ \}\n}{}m },
		qr/admin\.look: no user "nobody-of-this-name"/],
	['an unknown group', "admin: { socket: $s->{dir}/admin.sock, operate: [\"\@no-group\"] }\n", sub { $_[0] =~ s{^admin: \{ socket: \S+ \}\n}{}m },
		qr/admin\.operate: no group "no-group"/],
	['a missing password file', "routes: { \"*\": { host: 127.0.0.1, port: 1, tls: require, user: isp, password_file: $s->{dir}/none } }\n", undef, qr/routes: cannot open .*none/],
);
for (@bad) {
	my ($what, $extra, $edit, $says) = @$_;
	rewrite($s, "msa: { processes: 2 }\n$extra", $edit);
	my $line = reload($s);
	like($line, qr/^refused generation=$before stays: /, "$what: refused");
	like($line, $says, "$what: why");
}
unlink "$s->{dir}/sekisho.yaml";
like(reload($s), qr/^refused .*cannot open/, 'no file at all: refused');
is(generation($s), $before, 'nothing has changed');
like($c->send_mail($me, 'x@example.org', 'as before'), qr/^250/, 'and everything works');
ok(Sekisho::wait_for(20, sub { grep { /as before/ } $other->delivered }), 'as before');

# What is in force is what the next process starts with.
kill 'KILL', $s->pids;
$s->wait_ready;
is(generation($s), $before, 'processes killed after a refused reload have the generation in force');
$c = $s->login($me);
like($c->send_mail($me, 'x@example.org', 'restarted'), qr/^250/, 'mail is taken');
ok(Sekisho::wait_for(20, sub { grep { /restarted/ } $other->delivered }), 'and takes the route in force');

# While a process is being killed: whole or not at all.
rewrite($s, $good);
my %seen;
for my $name (qw(sekisho-msa sekisho-auth sekisho-queue sekisho-relay sekisho-keys sekisho-admin)) {
	my $at = generation($s);
	my ($victim) = $s->pids($name);
	kill 'STOP', $victim;
	my $from = length $s->log;
	kill 'HUP', $s->{daemon};
	select undef, undef, undef, 0.2;
	kill 'KILL', $victim;
	my $line = '';
	Sekisho::wait_for(20, sub { ($line) = substr($s->log, $from) =~ /- reload (.*)$/m });
	like($line // '', qr/^refused .*sekisho-\w+ ended meanwhile/, "$name dies during a reload: refused");
	$s->wait_ready;
	is(generation($s), $at, 'the old generation stays');
}
my ($silent) = $s->pids('sekisho-auth');
kill 'STOP', $silent;
like(reload($s), qr/^refused .*sekisho-auth did not answer within 10 s/, 'one that is silent for 10 s: refused');
kill 'CONT', $silent;
like(reload($s), qr/^done/, 'and when it answers again, the next one is in force');

# Many, under load.
my @sessions = grep { defined } map { $s->login($me) } 1 .. 20;
is(scalar @sessions, 20, 'twenty sessions');
reload($s) for 1 .. 40; # until the allocators have what they want
my ($fds, $rss) = holding($s);
my $lost = 0;
for my $round (1 .. 50) {
	my $from = length $s->log;
	kill 'HUP', $s->{daemon};
	my $each = $sessions[$round % @sessions];
	$each->send_mail($me, "r$round\@example.org", "round $round") =~ /^250/ or $lost++;
	Sekisho::wait_for(20, sub { substr($s->log, $from) =~ /- reload done/ }) or $lost++;
}
is($lost, 0, 'fifty reloads: every message taken, every reload done');
is(scalar(grep { $_->cmd('NOOP') =~ /^250/ } @sessions), 20, 'no session lost');
my $again = 0;
# Connections to the sink and open segments come and go; a leak would be one for each.
ok(Sekisho::wait_for(30, sub { ($again) = holding($s); $again <= $fds + 5 }), 'no descriptor leaked') or diag "$again, was $fds";
SKIP: {
	skip 'a sanitizer keeps what was freed', 1 if $Sekisho::BUILD =~ /san$/;
	my (undef, $grown) = holding($s);
	cmp_ok($grown - $rss, '<', 2048, 'no memory') or diag "$rss KiB to $grown KiB";
}
$_->cmd('QUIT') for @sessions;
ok(Sekisho::wait_for(60, sub { $s->json('queue', 'audit')->{queued} == 0 }), 'all is delivered');
ok($s->json('queue', 'audit')->{conserved}, 'and conserved');

# The last days of a certificate.
certificate($s, 'ending', 5);
like(reload($s), qr/^done/, 'a certificate with five days left');
like($s->log, qr/certificate expires=\S+ file=\S+cert\.pem: renew it and reload/, 'is warned of');
is($s->stop, 0, 'it stops');

# Without root.
SKIP: {
	skip 'is without root already', 3 if $> != 0;
	my $u = Sekisho->new(no_start => 1);
	# The checkout may be where only root may look.
	mkdir "$u->{dir}/programs";
	system 'cp', (grep { !/sekishoctl$/ } glob "$Sekisho::BUILD/sekisho*"), "$u->{dir}/programs";
	system 'chown', '-R', 'nobody', $u->{dir};
	$u->start(programs => "$u->{dir}/programs", before => sub { $( = $) = 65534; $< = $> = 65534; });
	like(reload($u), qr/^done generation=2/, 'without root: a reload');
	my $port = Sekisho::free_port();
	rewrite($u, '', sub { $_[0] =~ s/submission: \["127\.0\.0\.1:\d+"\]/submission: ["127.0.0.1:$port"]/ });
	like(reload($u), qr/^done/, 'with another port');
	rewrite($u, '', sub { $_[0] =~ s/submission: \["127\.0\.0\.1:\d+"\]/submission: ["127.0.0.1:587"]/ });
	like(reload($u), qr/^(?:refused .*127\.0\.0\.1:587 needs root|done)/, 'and a port that needs root is refused');
}
done_testing;

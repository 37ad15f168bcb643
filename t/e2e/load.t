#!/usr/bin/perl
# Setup: a service with one msa process, ten sessions and short waits for data; time passes on the shared test clock.
# Expectation: who is slow is let go within its bound, whatever it is slow at; when sessions run short clients get less time, also those that have begun
# to idle, then new ones hear 421 while those under way finish; each change is logged once and seen in the status.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use IO::Select;
use IO::Socket::INET;
use MIME::Base64;
use Sekisho;
use Socket qw(IPPROTO_TCP TCP_NODELAY);
use Test::More;

my $s = Sekisho->new(listen => 'balancers: [127.0.0.2]', conf => "msa: { processes: 1 }\nlimits: { sessions: 10, data_rate: 500 }\ntimeouts: { data: 60s }\n", clock => 1);
$SIG{ALRM} = sub { die "hangs:\n" . $s->log };
alarm 300;
my $lines = join '', map { 'x' x 68 . "\r\n" } 1 .. 43;
my $me = 'alice@example.test';
$s->account($me);

sub in_data {
	my $c = $s->login($me) or return;
	$c->cmd("MAIL FROM:<$me>");
	$c->cmd('RCPT TO:<bob@example.org>');
	like($c->cmd('DATA'), qr/^354/, 'data begins');
	return $c;
}
# Octet by octet means a segment each.
sub at_once { my ($c) = @_; setsockopt $c->{s}, IPPROTO_TCP, TCP_NODELAY, 1; return $c }
# Until the service has read all that was sent: an answer on another connection to the same process comes behind it, and what is said
# now at the earliest.
sub settled { my ($probe) = @_; like($probe->cmd('NOOP'), qr/^250/, 'time for it') for 1 .. 2 }
sub silent { my ($c) = @_; return !IO::Select->new($c->{s})->can_read(0.3) }
sub sessions_gone { my ($n) = @_; return Sekisho::wait_for(20, sub { @{$s->json('session', 'list')->{sessions}} <= $n }) }
sub loads { return [$s->log =~ / load level=(\S+)/g] }

# Slow clients
{
	my $probe = $s->login($me);
	my $idle = in_data();
	$s->advance(59_000);
	ok(silent($idle), 'who sends no content is waited for');
	$s->advance(2_000);
	like($idle->reply, qr/^421 4\.4\.2 \S+ Timeout/, 'for timeouts.data');

	my $drip = at_once(in_data());
	for (1 .. 13) {
		$drip->raw('x');
		settled($probe);
		$s->advance(5_000);
	}
	like($drip->reply, qr/^421 4\.4\.2 \S+ Data arrived slower than 500 octets per second/, 'who sends an octet now and then is not waited for longer');

	my $rich = in_data();
	$rich->raw('x' x 70 . "\r\n") for 1 .. 4000;
	settled($probe);
	$s->advance(61_000);
	like($rich->reply, qr/^421 4\.4\.2 /, 'nor is who was fast before');

	my $steady = at_once(in_data());
	for (1 .. 30) {
		$steady->raw($lines);
		settled($probe);
		$s->advance(6_000);
	}
	$steady->raw(".\r\n");
	like($steady->reply, qr/^250/, 'who keeps the rate up may take his time');

	my $word = at_once($s->connect);
	like($word->reply, qr/^220/, 'a command');
	for my $octet (split //, 'NOOP abcdefghij') {
		$word->raw($octet);
		$s->advance(20_000);
	}
	like($word->reply, qr/^421 4\.4\.2 \S+ Timeout/, 'octet by octet has the time of one command');

	my $chatty = $s->connect;
	ok($chatty->open_session, 'whoever talks');
	my $said;
	for (1 .. 6) {
		$s->advance(61_000);
		if (!silent($chatty)) { $said = $chatty->reply; last }
		$said = $chatty->cmd('NOOP');
	}
	like($said, qr/^421 4\.4\.2 /, 'and does not log in has five minutes');
	my $sasl = $s->connect;
	ok($sasl->open_session && $sasl->cmd('AUTH SCRAM-SHA-256') =~ /^334/, 'a login');
	$s->advance(301_000);
	like($sasl->reply, qr/^421 4\.4\.2 /, 'that is not gone on with: likewise');

	my $hand = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $s->{ports}{submissions});
	for (1 .. 7) {
		$hand->syswrite($_ == 1 ? "\x16\x03\x01\x00\xa5" : 'x');
		last if IO::Select->new($hand)->can_read(0.05);
		$s->advance(10_000);
	}
	is($hand->sysread(my $octet, 1), 0, 'a handshake octet by octet has the time of one handshake');
	my @log = sort $s->log =~ /timeout ip=127\.0\.0\.1 state=(?!data)(\S+)/g;
	is_deeply(\@log, [('command') x 5, 'handshake'], 'the log has each') or diag join ' ', @log;
	like($s->log, qr/refused rule=data_rate account=\Q$me\E received=13$/m, 'and who was too slow');
	is_deeply(loads(), [], 'none of it is load');
}
sessions_gone(0);

# The ladder
{
	my @idle = map { my $c = $s->connect; $c->reply; $c } 1 .. 6;
	my $busy = in_data();
	is_deeply(loads(), [], 'seven sessions of ten are normal');
	$s->advance(9_000);
	push @idle, map { my $c = $s->connect; $c->reply; $c } 1;
	ok(Sekisho::wait_for(10, sub { "@{loads()}" eq 'busy' }), 'eight are not');
	like($s->log, qr/ load level=busy sessions=8 limit=10$/m, 'which is logged');
	like($s->ctl('status'), qr/^LOAD +msa 0 is busy, and gives clients less time$/m, 'and stands in the status');
	is((grep { $_->{role} eq 'msa' } @{$s->json('status')->{processes}})[0]{load}, 'busy', 'as JSON');
	push @idle, map { my $c = $s->connect; like($c->reply, qr/^220/, 'nine and ten are let in'); $c } 1 .. 2;
	my $late = $s->connect;
	like($late->reply, qr/^421 4\.3\.2 \S+ /, 'an eleventh is not');
	is($late->reply, '', 'and closed');
	my $tls = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $s->{ports}{submissions});
	is($tls->sysread(my $octet, 1), 0, 'where TLS comes first it is only closed');
	like($s->connect->reply, qr/^421 4\.3\.2 /, 'again and again');
	is("@{loads()}", 'busy full', 'logged once');
	like($s->ctl('status'), qr/^LOAD +msa 0 is full, and refuses new sessions$/m, 'and shown');

	$busy->raw($lines);
	like($idle[7]->cmd('NOOP'), qr/^250/, 'those under way go on');
	$s->advance(1_500);
	like($_->reply, qr/^421 4\.4\.2 \S+ Timeout/, 'who has idled for ten seconds makes room') for @idle[0 .. 5];
	sessions_gone(4);
	like($s->connect->reply, qr/^220/, 'for others');
	$busy->raw("the end\r\n.\r\n");
	like($busy->reply, qr/^250/, 'a message under way is taken');
	ok(Sekisho::wait_for(10, sub { "@{loads()}" =~ /normal$/ }), 'and all is normal again');
	unlike($s->ctl('status'), qr/^LOAD/m, 'also in the status');
	$s->advance(20_000);
	like($busy->cmd('NOOP'), qr/^250/, 'waits are as before');
	like("@{loads()}", qr/^busy full (busy )?normal$/, 'each change was logged once');
}
sessions_gone(0);

# Connections of a balancer that have not said yet whose they are
{
	my $before = @{loads()};
	my $later = sub { my @all = @{loads()}; return "@all[$before .. $#all]" };
	my @waiting = map { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $s->{ports}{submission}, LocalAddr => '127.0.0.2') } 1 .. 10;
	ok(Sekisho::wait_for(10, sub { $later->() eq 'busy full' }), 'count as well') or diag $later->();
	like($s->connect->reply, qr/^421 4\.3\.2 /, 'with all that follows from it');
	$s->advance(5_100);
	ok(Sekisho::wait_for(10, sub { $later->() =~ /normal$/ }), 'for as long as they wait');
}
is($s->stop, 0, 'stops cleanly');
done_testing;

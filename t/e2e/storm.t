#!/usr/bin/perl
# Setup: three accounts, two of them paced; a site that takes mail, one that is down, one that refuses for good; the shared test clock. In an order that
# comes from SEKISHO_SEED (printed), SEKISHO_STORM steps of everything that may happen at once: submissions small and large, holds, releases, flushes,
# reroutes, removals (two at a time, too), quota changes, reloads, SIGKILL of any process with and without a wait for the next one, time passing, the wall clock set
# forward and back.
# Expectation: the books are conserved at every look; the accounts were charged exactly what was accepted and nothing stays reserved; when the site is well and
# all holds are released, everything drains; each promised recipient ended as his site and the operators have it; each that bounced or expired is in exactly
# one notification to its sender; no process died that was not killed.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use Peers;
use Test::More;
use Time::HiRes qw(time sleep);

my $steps = $ENV{SEKISHO_STORM} // 90;
my $seed = $ENV{SEKISHO_SEED} // 1;
srand $seed;
diag "$steps steps, SEKISHO_SEED=$seed";
my ($minute, $hour) = (60_000, 3_600_000);
my ($down, $refusing) = (Sekisho::free_port(), Sekisho::free_port());
my $refuser = Peers->sink('127.0.0.1', $refusing, '-f', 'rcpt');
my $s = Sekisho->new(clock => 1, no_start => 1);
my @retries = ('[2min, 5min, 10min, 20min, 1h]', '[1min, 3min, 2h]');

sub configure {
	my ($limit, $retry) = @_;
	my ($paced, $free) = ('burst_recipients: 20 then 20/1min, burst_messages: off', $Sekisho::UNPACED);
	$s->{extra} = <<"CONF";
quota: { recipients: $limit/day, messages: 100000/day, $paced }
classes: { free: { recipients: 100000/day, $free } }
limits: { messages: 100000, account_sessions: 500, prefix_sessions: 500 }
auth: { failure_delay: 10ms }
retry: { schedule: $retry, expire: 2d, delay_notice: [1h, 4h] }
routes:
  "down.example": "127.0.0.1:$down"
  "refusing.example": "127.0.0.1:$refusing"
  "*": "127.0.0.1:$s->{ports}{sink}"
CONF
	$s->write_conf;
}
configure(100000, $retries[0]);
$s->start;
my @accounts = map { "$_\@example.test" } qw(alice bob carol);
my @domains = qw(good.example down.example refusing.example);
$s->account(@accounts);
$s->ctl('account', 'class', $accounts[2], 'free');

my (%client, %promised, %unknown, %id, @ids);
my ($serial, $passed, $killed) = (0, 0, 0);

sub pick { return $_[rand @_] }
sub some_selector { my $kind = int rand 3; return $kind == 0 && @ids ? pick(@ids) : $kind == 1 ? ('--account', pick(@accounts)) : ('--recipient', pick(@domains)) }

sub submit {
	my $account = pick(@accounts);
	my $c = $client{$account} // $s->login($account) // return;
	my $name = 'm' . ++$serial . '-end';
	my @to = map { "r$_." . $serial . '@' . pick(@domains[0, 0, 1, 2]) } 1 .. 1 + int rand(rand() < 0.1 ? 60 : 4);
	$client{$account} = $c;
	my $said = $c->send_mail($account, \@to, "$name\r\n" . (rand() < 0.1 ? "large body\r\n" x 8000 : ''));
	if ($said =~ /^250 2\.0\.0 Queued as (\w+)/) {
		$promised{$name} = { account => $account, to => \@to, id => $1 };
		push @ids, $1;
	} elsif ($said eq '') {
		$unknown{$name} = 1;
	}
	delete $client{$account} unless $said =~ /^[25]50/;
}

sub age { my ($ms) = @_; $passed += $ms; $s->advance($ms); %client = () if $ms > 3 * $minute }

sub look {
	my ($what) = @_;
	my $a;
	my $good = Sekisho::wait_for(30, sub { $a = $s->json('queue', 'audit'); $a && exists $a->{conserved} });
	ok($good && $a->{conserved}, "conserved: $what") or diag $s->ctl('queue', 'audit');
}

sub strike {
	my ($name, $wait) = @_;
	age(11_000);
	my @pids = $s->pids($name) or return;
	my $victim = pick(@pids);
	$killed++ if kill 'KILL', $victim;
	delete @client{@accounts} if $name eq 'sekisho-msa';
	Sekisho::wait_for(30, sub { @pids == grep { $_ != $victim } $s->pids($name) }) if $wait;
}

my @processes = qw(sekisho-msa sekisho-auth sekisho-queue sekisho-queue sekisho-relay sekisho-relay sekisho-keys sekisho-admin);
my @acts = (
	(sub { submit() for 1 .. 1 + int rand 8 }) x 8,
	(sub { $s->ctl('queue', 'hold', some_selector(), rand() < 0.5 ? ('--for', pick(qw(1min 30min))) : ()) }) x 2,
	sub { $s->ctl('queue', 'release', some_selector()) },
	sub { $s->ctl('queue', 'flush', rand() < 0.5 ? '--all' : some_selector()) },
	sub { $s->ctl('queue', 'reroute', some_selector(), '--to', pick(qw(fresh retry fallback))) },
	sub { $s->ctl('queue', 'remove', $ids[rand @ids], '--yes') if @ids },
	sub {
		my @what = some_selector();
		my @pids = map { my $pid = fork // die $!; $pid || do { $s->ctl('queue', 'remove', @what, '--yes'); POSIX::_exit(0) } } 1 .. 2;
		waitpid $_, 0 for @pids;
	},
	sub { $s->ctl('quota', rand() < 0.5 ? ('set', pick(@accounts), int rand 200) : ('clear', pick(@accounts))) },
	sub { configure(pick(100000, 50), pick(@retries)); $s->ctl('reload') },
	(sub { strike(pick(@processes), rand() < 0.5) }) x 2,
	(sub { age($passed < 18 * $hour ? pick(1000, $minute, 3 * $minute, 20 * $minute) : 1000) }) x 3,
	sub { $s->jump(pick(-30, -2, 2, 30) * $minute) },
);
for my $step (1 .. $steps) {
	pick(@acts)->();
	look("step $step") if $step % 30 == 0;
}

# Peace: what was charged, then everything must go.
age(11_000);
configure(100000, $retries[0]);
ok(Sekisho::wait_for(60, sub { $s->ctl('reload'); $? == 0 }), 'reload') or diag $s->ctl('reload');
%client = ();
my ($used, $reserved, $a);
ok(Sekisho::wait_for(30, sub {
	($used, $reserved) = (0, 0);
	for (@accounts) { my $q = $s->json('quota', 'show', $_) // {}; $used += $q->{used} // -1; $reserved += $q->{reserved} // 1 }
	$a = $s->json('queue', 'audit');
	return $a && $used == ($a->{accepted} // -1) && $reserved == 0;
}), 'the accounts are charged exactly what was accepted') or diag "used $used reserved $reserved ", $s->ctl('queue', 'audit');
$s->ctl('queue', 'release', '--account', $_) for @accounts;
$s->ctl('queue', 'release', '--recipient', $_) for @domains;
for my $hold (@{ ($s->json('queue', 'holds') // {})->{holds} // [] }) { $s->ctl("queue", "release", $1) if $hold->{what} =~ m{^message (\S+)} }
my $well = Peers->sink('127.0.0.1', $down);
my $empty;
for (1 .. 60) {
	last if $empty = Sekisho::wait_for(1, sub { $a = $s->json('queue', 'audit'); $a && defined $a->{queued} && $a->{queued} == 0 });
	$s->advance(30 * $minute);
}
ok($empty, 'everything drains') or diag $s->ctl('queue', 'list'), $s->ctl('queue', 'holds');
look('at the end');
ok($a->{accepted} > 0 && $a->{delivered} > 0 && $a->{bounced} > 0 && $a->{removed} > 0 && $a->{generated} > 0, 'and something of everything happened')
	or diag $s->ctl('queue', 'audit');

my %arrived;
my %told; # recipient => notifications of failure that name it, by Message-ID
for my $mail ($s->delivered, $well->delivered) {
	if ($mail =~ /^Content-Type: multipart\/report/m) {
		my ($mid) = $mail =~ /^Message-ID: <(.*)>/mi;
		$told{$1}{$mid} = 1 while $mail =~ /^Final-Recipient: rfc822; (\S+?)\r?\nAction: failed/mg;
	} elsif ($mail =~ /^(m\d+-end)\r?$/m) {
		my $name = $1;
		$arrived{$name}{$1} = 1 while $mail =~ /^X-Rcpt-Args: <(.*?)>/mg;
	}
}
my (@wrong, %end);
for my $name (sort keys %promised) {
	my $p = $promised{$name};
	my $m = $s->json('queue', 'show', $p->{id});
	my %state = map { $_->{address} => $_->{state} } @{ ref $m ? $m->{rcpt} : [] };
	for my $to (@{ $p->{to} }) {
		my $state = $state{$to} // 'unknown';
		my $notices = keys %{ $told{$to} // {} };
		$end{$state}++;
		push @wrong, "$name $p->{id} $to: $state, arrived " . ($arrived{$name}{$to} // 0) . ", notices $notices"
			if $state !~ /^(?:delivered|removed|bounced|expired)$/ || ($state eq 'delivered') != !!$arrived{$name}{$to} && $state ne 'removed'
			|| $notices != ($state =~ /^(?:bounced|expired)$/ ? 1 : 0) || $state eq 'bounced' && $to !~ /refusing/;
	}
}
is_deeply(\@wrong, [], scalar(keys %promised) . ' promised messages: ' . join(', ', map { "$end{$_} $_" } sort keys %end));
is_deeply([grep { !$promised{$_} && !$unknown{$_} } keys %arrived], [], 'nothing arrives that nobody sent');
my $log = $s->log;
my @died = grep { !/signal:9\b/ } $log =~ /^(.* process down name=.*)$/mg;
is_deeply(\@died, [], "no process died but of the $killed kills");
done_testing;

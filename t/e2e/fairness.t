#!/usr/bin/perl
# Setup: one account has many messages of 200 recipients each for one domain, and of 200 recipients in 200 domains; while the relays stand still, another
# account and a third send single mails. Then the relays go on.
# Expectation: no single mail waits for more of the others' than what was at the relay already and what the places shared allow, whichever domain it is for;
# everything is delivered and the books are conserved.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use Test::More;

my $s = Sekisho->new(conf => "${Sekisho::UNLIMITED}relay: { connections: 20, site_connections: 8 }\nlimits: { messages: 10000 }\n");
my ($bulk, $one, $two) = map { "$_\@example.test" } 'bulk', 'one', 'two';
$s->account($bulk, $one, $two);

sub mail {
	my ($account, $count, @to) = @_;
	my $c = $s->login($account) or die 'no login';
	return grep { defined } map { ($c->send_mail($account, \@to, "x\r\n") =~ /^250 2\.0\.0 Queued as (\w+)/)[0] } 1 .. $count;
}
# Deliveries in the order in which the queue heard of them: recipients.
sub order { my @to = $s->log =~ /\bdelivered to=(\S+)/g; return @to }
sub signal { kill $_[0], $s->pids('sekisho-relay') }

for my $case (
	['one domain', sub { map { "r$_\@big.example" } 1 .. 200 }, 'big.example'],
	['many domains', sub { map { "r\@d$_.example" } 1 .. 200 }, 'd150.example'],
) {
	my ($what, $to, $domain) = @$case;
	my $before = order();
	signal('STOP');
	is(scalar mail($bulk, 5, $to->()), 5, "$what: five messages to 200 recipients each");
	my @singles = map { mail($_, 5, "single\@$domain"), mail($_, 5, 'single@other.example') } $one, $two;
	is(scalar @singles, 20, "$what: twenty single mails behind them");
	signal('CONT');
	ok(Sekisho::wait_for(60, sub { order() >= $before + 1020 }), "$what: all are delivered") or diag scalar order();
	my @order = order();
	splice @order, 0, $before;
	my ($last) = grep { $order[$_] =~ /^single/ } reverse 0 .. $#order;
	my $overtaken = grep { !/^single/ } @order[0 .. $last];
	# At the relay already: 8 jobs of 50 for one domain, or 20 of one; then at most a fair share, and a first job for each domain not yet known to be at the
	# same site as the others, which has places of its own until then.
	my $most = $what eq 'one domain' ? 12 * 50 : 250;
	ok($overtaken <= $most, "$what: single mails wait for what was on its way, not for the rest") or diag "$overtaken of 1000 were before the last";
}
my $audit;
ok(Sekisho::wait_for(30, sub { $audit = $s->json('queue', 'audit'); $audit && $audit->{conserved} && $audit->{queued} == 0 }), 'conserved') or diag $s->ctl('queue', 'audit');
done_testing;

#!/usr/bin/perl
# Setup: one connection for all fresh mail, a class of weight 4; while the relays stand still, an account of that class and one of standard hand in as many
# messages; then again, but meanwhile the two change places; then a reload makes the weights equal.
# Expectation: of what is sent on, four of five are of the account that weighs four, also for mail that was accepted before the class changed. A weight out of
# bounds is a mistake.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use Test::More;

my $s = Sekisho->new(clock => 1, no_start => 1);
sub conf {
	my ($weight) = @_;
	$s->{extra} = "quota: { $Sekisho::UNPACED }\nclasses: { heavy: { weight: $weight } }\nlimits: { messages: 10000 }\nrelay: { connections: 1 }\n"
		. qq(routes: { "*": "127.0.0.1:$s->{ports}{sink}" }\n);
	$s->write_conf;
}
conf(101);
like(scalar(qx("$Sekisho::BUILD/sekishod" -t -c "$s->{dir}/sekisho.yaml" 2>&1)), qr/weight: .*1 to 100/, 'a weight has bounds');
conf(4);
$s->start;
my ($one, $two) = map { "$_\@example.test" } 'one', 'two';
$s->account($one, $two);

sub class { my ($account, $class) = @_; $s->ctl('account', 'class', $account, $class); is($?, 0, "$account: $class") }
sub signal { kill $_[0], $s->pids('sekisho-relay') }
sub order { my @to = $s->log =~ /\bdelivered to=(\w+)@/g; return @to }
sub mail { for (1 .. $_[0]) { $s->submit($_, 'x', ($_ eq $one ? 'one' : 'two') . '@example.org') for $one, $two } }
# So many of each wait; of the first twenty behind those that were at a relay: how many are of one's.
sub share {
	my ($what, $from, $to) = @_;
	my $before = order();
	signal('STOP');
	mail(25);
	$_[3]->() if $_[3];
	signal('CONT');
	ok(Sekisho::wait_for(60, sub { order() >= $before + 50 }), "$what: all are delivered") or diag scalar order();
	my $n = grep { $_ eq 'one' } (order())[$before + 2 .. $before + 21];
	ok($n >= $from && $n <= $to, "$what: $from to $to of 20 are of the first account") or diag "$n";
}

class($one, 'heavy');
share('one weighs four', 14, 18);
share('the two change', 2, 8, sub {
	class($one, 'standard');
	class($two, 'heavy');
	$s->advance(10_000);
	mail(1);
});
Sekisho::wait_for(20, sub { ($s->json('queue', 'audit') // {})->{queued} == 0 });
conf(1);
$s->ctl('reload');
is($?, 0, 'a reload');
share('all weigh the same', 8, 12);
ok(Sekisho::wait_for(20, sub { my $a = $s->json('queue', 'audit'); $a && $a->{conserved} && $a->{queued} == 0 }), 'conserved');
done_testing;

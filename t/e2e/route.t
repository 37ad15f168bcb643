#!/usr/bin/perl
# Setup: a service whose routes name their hosts: "*" the sink by "localhost", example.net the sink by another name of this machine, example.com a
# port where nobody listens, example.edu a name that does not exist. Then a service without "*" and without a name server.
# Expectation: host names are resolved inside the sandbox and mail is delivered; the route of the very domain, in any case of letters, wins over "*";
# what cannot be routed stays queued, with the reason as its last reply, is not lost, and leaves as soon as a restart brings a route.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use Socket qw(getaddrinfo getnameinfo SOCK_STREAM AF_INET NI_NUMERICHOST NIx_NOSERV);
use Sys::Hostname;
use Test::More;

my $me = 'alice@example.test';

# A name besides localhost that resolves to 127.0.0.1, where the sink listens; from the hosts file, so that no network is asked.
sub other_name {
	my @names;
	open my $f, '<', '/etc/hosts' or return;
	for (<$f>) {
		s/#.*//;
		my ($address, @rest) = split;
		push @names, @rest if defined $address && $address =~ /^(127\.|::1$)/;
	}
	for my $name (hostname(), @names) {
		next if $name eq 'localhost';
		my ($error, @found) = getaddrinfo($name, '', { socktype => SOCK_STREAM, family => AF_INET });
		return $name if !$error && grep { (getnameinfo($_->{addr}, NI_NUMERICHOST, NIx_NOSERV))[1] eq '127.0.0.1' } @found;
	}
	return;
}

sub queued {
	my ($s) = @_;
	return @{$s->json('queue', 'list')->{messages} // []};
}

my $other = other_name();
note $other ? "the other name is $other" : 'THIS MACHINE HAS NO NAME BESIDES localhost FOR 127.0.0.1: example.net is routed to localhost, and no name is resolved';
$other //= 'localhost';

my $closed = Sekisho::free_port();
my $s = Sekisho->new(no_start => 1);
my $sink = $s->{ports}{sink};
$s->{extra} = <<"CONF";
routes:
  "*": "localhost:$sink"
  example.net: "$other:$sink"
  example.com: "127.0.0.1:$closed"
  example.edu: "no-such-host.invalid:25"
retry: { schedule: [1s] }
CONF
$s->write_conf;
$s->start;
$s->account($me);
my $c = $s->login($me);
ok($c, 'login') or BAIL_OUT $s->log;

like($c->send_mail($me, 'a@example.org', 'by localhost'), qr/^250/, 'a message for "*"');
ok(Sekisho::wait_for(20, sub { grep { /by localhost/ } $s->delivered }), 'is delivered to localhost') or diag $s->log;
like($c->send_mail($me, 'b@example.net', 'by another name'), qr/^250/, 'a message for a domain of its own');
ok(Sekisho::wait_for(20, sub { grep { /by another name/ } $s->delivered }), "is delivered to $other") or diag $s->log;

like($c->send_mail($me, ['c@example.com'], 'exact wins'), qr/^250/, 'a message whose own route is dead');
like($c->send_mail($me, ['d@EXAMPLE.Com'], 'exact wins too'), qr/^250/, 'one in other letters');
like($c->send_mail($me, ['e@example.edu'], 'unknown host'), qr/^250/, 'one whose next host does not exist');
like($c->send_mail($me, ['f@sub.example.com'], 'a subdomain is another domain'), qr/^250/, 'one for a subdomain');
ok(Sekisho::wait_for(20, sub { grep { /subdomain is another/ } $s->delivered }), 'the subdomain goes by "*"') or diag $s->log;
ok(Sekisho::wait_for(30, sub { my $all = $s->ctl('queue', 'list'); 2 == (() = $all =~ /Connection refused/g) && $all =~ /cannot be resolved/ }),
	'the three stay queued, each with its reason') or diag $s->ctl('queue', 'list'), $s->log;
is(scalar(grep { /exact wins/ } $s->delivered), 0, 'the dead route was taken, not "*"');
is(scalar(queued($s)), 3, 'three are queued');
is($s->stop, 0, 'stops cleanly');

$s->{extra} = qq(routes:\n  example.net: "$other:$sink"\nretry: { schedule: [1s] }\n);
$s->write_conf;
$s->start;
$c = $s->login($me);
ok($c, 'login without "*"') or BAIL_OUT $s->log;
like($c->send_mail($me, ['g@example.net', 'h@nowhere.example.org'], 'half'), qr/^250/, 'a message with one recipient that has a route');
ok(Sekisho::wait_for(20, sub { grep { /half/ && /g\@example\.net/ && !/RCPT TO:<h\@/i } $s->delivered }), 'who gets it') or diag $s->log;
ok(Sekisho::wait_for(20, sub { $s->ctl('queue', 'list') =~ /4\.4\.3 the MX of nowhere\.example\.org cannot be resolved/ }), 'for the other the reason is said') or diag $s->ctl('queue', 'list');
ok($s->json('queue', 'audit')->{conserved}, 'nothing is lost');
is($s->stop, 0, 'stops cleanly');

$s->{extra} = qq(routes:\n  "*": "$other:$sink"\nretry: { schedule: [1s] }\n);
$s->write_conf;
$s->start;
ok(Sekisho::wait_for(40, sub { my $a = $s->json('queue', 'audit'); $a->{conserved} && $a->{queued} == 0 }), 'with a route all of them leave')
	or diag $s->ctl('queue', 'list'), $s->log;
is(scalar(grep { /exact wins|unknown host|half/ } $s->delivered), 5, 'each once');
done_testing;

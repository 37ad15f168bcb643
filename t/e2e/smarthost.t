#!/usr/bin/perl
# Setup: one service hands its mail to another (a real one, with accounts) as a smarthost, and to a Postfix that knows AUTH LOGIN only (as root); routes
# differ in TLS and login. A sink offers neither.
# Expectation: mail passes where certificate, name and password are right, by STARTTLS and by TLS from the start; where one of them is wrong, or TLS is
# missing where it must be, it waits, says why, and no octet of it or of the password has been said in clear; passwords are in no log.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use Peers;
use IPC::Open3;
use Test::More;

my $me = 'alice@example.test';
my $secret = 'Wrong-Secret-Of-Ours';
my $dns_port = Sekisho::free_port();
my $nsd = Peers->nsd($dns_port, "wrong.hosts. A 127.0.0.1\n");
my $smart = Sekisho->new;
$smart->account($me);
my $s = Sekisho->new(no_start => 1);
my ($from_start, $starttls, $sink) = ($smart->{ports}{submissions}, $smart->{ports}{submission}, $s->{ports}{sink});
my %file = map { $_ => "$s->{dir}/$_" } qw(right wrong);
Peers::write_file($file{right}, "$Sekisho::PASSWORD\n");
Peers::write_file($file{wrong}, "$secret\n");
chmod 0600, values %file;

my ($postfix, $postfix_route) = (undef, '');
if ($> == 0) {
	my $port = Sekisho::free_port();
	my $pem = "$s->{dir}/both.pem";
	Peers::write_file($pem, join '', map { Peers::read_file("$smart->{dir}/$_.pem") } 'key', 'cert');
	$postfix = Peers->postfix('127.0.0.1', $port, 'login.example', "smtpd_sasl_mechanism_filter = login\n", $pem, { relay => $Sekisho::PASSWORD });
	$postfix_route = qq(  login.example: { host: localhost, port: $port, tls: verify, user: "relay\@sasl.test", password_file: $file{right} }\n);
}

my $login = qq(user: "$me", password_file: $file{right});
$s->{extra} = <<"CONF";
routes:
  verify.example: { host: localhost, port: $starttls, tls: verify, $login }
  implicit.example: { host: "127.0.0.1", port: $from_start, tls: implicit, $login }
  require.example: { host: wrong.hosts, port: $starttls, tls: require, $login }
  password.example: { host: localhost, port: $starttls, tls: verify, user: "$me", password_file: $file{wrong} }
  name.example: { host: wrong.hosts, port: $starttls, tls: verify, $login }
  untrusted.example: { host: localhost, port: $s->{ports}{submission}, tls: verify, $login }
  clear.example: { host: localhost, port: $sink, tls: require, $login }
  clear-verify.example: { host: localhost, port: $sink, tls: verify }
  none.example: { host: localhost, port: $starttls, tls: none }
  may.example: "localhost:$sink"
$postfix_route
dns: { servers: ["127.0.0.1:$dns_port"], timeout: 2s }
relay: { ca_file: $smart->{dir}/cert.pem }
retry: { schedule: [1s] }
CONF

# What is wrong with the files is said before anything starts.
sub refuses {
	my ($why, $what) = @_;
	my $pid = open3(my $in, my $out, undef, "$Sekisho::BUILD/sekishod", '-t', '-c', "$s->{dir}/sekisho.yaml");
	my $said = do { local $/; <$out> };
	waitpid $pid, 0;
	ok($? != 0, "$what: refused");
	like($said, $why, 'with the reason');
	unlike($said, qr/\Q$secret\E|\Q$Sekisho::PASSWORD\E/, 'and nothing of the password');
}
$s->write_conf;
chmod 0644, $file{wrong};
refuses(qr/routes: \S+wrong can be read by everybody/, 'a password for everybody');
chmod 0600, $file{wrong};
rename $file{wrong}, "$file{wrong}.away";
refuses(qr/routes: cannot open \S+wrong: No such file/, 'a missing password');
Peers::write_file($file{wrong}, '');
refuses(qr/routes: \S+wrong is empty/, 'an empty one');
Peers::write_file($file{wrong}, "\n$secret\n");
refuses(qr/routes: \S+wrong is empty/, 'an empty first line');
Peers::write_file($file{wrong}, $secret . 'x' x (1025 - length $secret) . "\n");
refuses(qr/routes: \S+wrong has a first line of more than 1024 octets/, 'one that would be cut');
Peers::write_file($file{wrong}, "$secret\0x\n");
refuses(qr/routes: \S+wrong holds a NUL octet/, 'one that would end early');
Peers::write_file($file{wrong}, $secret . 'x' x (1024 - length $secret) . "\r\n");
{
	chmod 0600, $file{wrong};
	my $said = `$Sekisho::BUILD/sekishod -t -c $s->{dir}/sekisho.yaml 2>&1`;
	is($?, 0, 'the longest one is good') or diag $said;
}
rename "$file{wrong}.away", $file{wrong};
{
	local $s->{extra} = $s->{extra} =~ s/(ca_file: )\S+/$1$file{right}/r;
	$s->write_conf;
	refuses(qr/relay\.ca_file: \S+right: no usable certificate/, 'a file without certificates');
}
$s->write_conf;
$s->start;
$s->account($me);
my $c = $s->login($me);
ok($c, 'login') or BAIL_OUT $s->log;

my $number = 0;
sub send_one {
	my ($domain) = @_;
	my $said = $c->send_mail($me, "carol\@$domain", 'number-' . ++$number . '-');
	my ($id) = $said =~ /^250 2\.0\.0 Queued as (\w+)/;
	ok($id, "accepted for $domain") or diag $said;
	return $id;
}

sub passes {
	my ($domain, $peer) = @_;
	my $id = send_one($domain);
	ok(Sekisho::wait_for(30, sub { grep { /number-$number-/ } $peer->delivered }), "$domain: arrived")
		or diag $s->ctl('queue', 'show', $id), $s->log, $peer->log;
	ok(Sekisho::wait_for(20, sub { $s->show($id)->{finished} }), 'and we know');
}

sub waits {
	my ($domain, $why) = @_;
	my $id = send_one($domain);
	my $m;
	ok(Sekisho::wait_for(30, sub { $m = $s->show($id); ($m->{attempts} // 0) >= 2 }), "$domain: attempted again") or diag $s->ctl('queue', 'show', $id), $s->log;
	is(($m->{rcpt}[0] // {})->{state}, 'queued', 'it waits');
	like($m->{last_reply}, $why, 'it says why') or diag explain $m;
}

passes($_, $smart) for qw(verify.example implicit.example require.example);
passes('verify.example', $smart);
passes('may.example', $s);
if ($postfix) {
	passes('login.example', $postfix);
	like($postfix->log, qr/sasl_method=LOGIN, sasl_username=relay\@sasl\.test/, 'by LOGIN');
}
waits('password.example', qr/4\.7\.8 localhost \[.*\]: our login was refused: 535 5\.7\.8/);
waits('name.example', qr/4\.7\.5 wrong\.hosts \[.*\]: .*hostname mismatch/i);
waits('untrusted.example', qr/4\.7\.5 localhost \[.*\]: .*self.signed/i);
waits('clear.example', qr/4\.7\.4 localhost \[.*\]: TLS is required, and not offered/);
waits('clear-verify.example', qr/4\.7\.4 /);
waits('none.example', qr/^530 .*STARTTLS/); # in the smarthost's own words
is(scalar(grep { /clear/ } $s->delivered), 0, 'nothing went in clear that must not');
like($s->log, qr/host-refused.*our login was refused/, 'the log says it');
for ($s, $smart) {
	unlike($_->log, qr/\Q$secret\E|\Q$Sekisho::PASSWORD\E/, 'no password in a log');
	ok($_->json('queue', 'audit')->{conserved}, 'nothing is lost');
}
is($s->stop, 0, 'stops cleanly');
done_testing;

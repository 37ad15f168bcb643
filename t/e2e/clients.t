#!/usr/bin/perl
# Setup: a service with one account, a receiving smtp-sink, and the mail programs that people use.
# Expectation: each of them logs in with each mechanism it knows, by STARTTLS and by implicit TLS, with the mechanism it was told to use or, left to
# itself, with one of ours; its message arrives. A wrong password is refused in each.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Clients;
use Sekisho;
use Test::More;

my $s = Sekisho->new(conf => "auth: { failure_delay: 10ms }\n$Sekisho::UNLIMITED");
$SIG{ALRM} = sub { die "hangs:\n" . $s->log };
alarm 400;
my ($dir, $p, $me) = ($s->{dir}, $s->{ports}, 'alice@example.test');
$s->account($me);

# The mechanisms of the logins that the log has gained since the last call.
my $read = 0;
sub logins {
	my $log = substr $s->log, $read;
	$read += length $log;
	return $log =~ /^.* login account=\Q$me\E .*mechanism=(\S+)/mg;
}

my $sent = 0;
for my $client (sort keys %Clients::CLIENTS) {
	my ($mechanisms, $send) = @{$Clients::CLIENTS{$client}}{qw(mechanisms send)};
	for my $implicit (0, 1) {
		my %how = (service => $s, account => $me, to => 'carol@example.org', implicit => $implicit);
		for my $mechanism (@$mechanisms) {
			my $name = "$client, " . ($mechanism // 'as it likes') . ', ' . ($implicit ? 'implicit TLS' : 'STARTTLS');
			my $file = "$dir/mail$sent";
			open my $f, '>', $file or die $!;
			print $f "From: Alice <$me>\nTo: carol\@example.org\nSubject: message $sent of $client\n\nsent by a client\n";
			close $f;
			logins();
			is($send->({ %how, mechanism => $mechanism, password => $Sekisho::PASSWORD }, $file), 0, $name) or diag Clients::say_more();
			my @by = logins();
			is(scalar @by, 1, 'one login');
			is($by[0], $mechanism, 'by that mechanism') if $mechanism;
			my $subject = "message $sent of $client";
			ok(Sekisho::wait_for(20, sub { grep { /^Subject: \Q$subject\E\r?$/m } $s->delivered }), 'and the message arrives');
			$sent++;
		}
		isnt($send->({ %how, mechanism => $_, password => 'wrong password' }, "$dir/mail0"), 0, "$client is refused with a wrong password, " . ($_ // 'as it likes'))
			for @$mechanisms;
		is(scalar(my @none = logins()), 0, 'and is not logged in');
	}
}

# gsasl only logs in, by STARTTLS; it checks the server's proof, too.
sub gsasl {
	my ($mechanism, $password) = @_;
	return `gsasl --smtp --connect=127.0.0.1:$p->{submission} --mechanism=$mechanism --no-cb --authentication-id=$me --authorization-id= --password='$password' --x509-ca-file=$dir/cert.pem </dev/null 2>&1`;
}
for my $mechanism (qw(PLAIN LOGIN SCRAM-SHA-256)) {
	like(gsasl($mechanism, $Sekisho::PASSWORD), qr/^235 2\.7\.0/m, "gsasl, $mechanism");
	is_deeply([logins()], [$mechanism], 'by that mechanism');
	like(gsasl($mechanism, 'wrong password'), qr/^535 5\.7\.8/m, "gsasl, $mechanism, a wrong password");
}

# A suspended account hears why from a mechanism that has no password to compare, too.
$s->ctl('account', 'suspend', $me);
for my $mechanism (qw(PLAIN LOGIN SCRAM-SHA-256)) {
	my $said = sub { gsasl($mechanism, $_[0]) };
	like($said->($Sekisho::PASSWORD), qr/^525 5\.7\.13 .*code K7/m, "$mechanism, suspended");
	like($said->('wrong password'), qr/^535 5\.7\.8/m, "$mechanism, suspended, a wrong password");
}

is(scalar(my @delivered = $s->delivered), $sent, 'each message once');
is($s->stop, 0, 'stops cleanly');
unlike($s->log, qr/\Q$Sekisho::PASSWORD\E|wrong password/, 'no secret is in the log');
done_testing;

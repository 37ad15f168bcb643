#!/usr/bin/perl
# Setup: a service with one account, a receiver that keeps what it gets octet for octet, and the mail programs that people use.
# Expectation: each of them makes a message of its own with a binary file attached, and sends it by STARTTLS and by implicit TLS; what is attached
# to the mail that arrives is the file, octet for octet. Of those that send a message as it is given to them, all of it arrives octet for octet.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Clients;
use MIME::Parser;
use Peers;
use Sekisho;
use Test::More;

my $s = Sekisho->new(no_sink => 1, conf => $Sekisho::UNLIMITED);
$SIG{ALRM} = sub { die "hangs:\n" . $s->log };
alarm 400;
my ($dir, $me) = ($s->{dir}, 'alice@example.test');
$s->account($me);
my $receiver = Peers->receiver('127.0.0.1', $s->{ports}{sink});

sub write_file { my ($name, $octets) = @_; open my $f, '>:raw', "$dir/$name" or die $!; print $f $octets; close $f; return "$dir/$name" }

# All octets, what may look like an end, and enough that nothing of it is short.
srand 1;
my $data = join '', (map { chr } 0 .. 255), "\r\n.\r\n", "\n.\n", "\r.\r", "\0" x 1000, "\r\n" x 100, (map { chr rand 256 } 1 .. 90_000);
my $file = write_file('data.bin', $data);

# A message that has all it needs; lines ended by LF, as files have them.
my $given = "From: Alice <$me>\nTo: carol\@example.org\nDate: Wed, 25 Nov 2026 10:00:00 +0900\nMessage-ID: <given\@example.test>\n"
	. "Subject: \xe9\x96\xa2\xe6\x89\x80 \t \nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\nX-Folded: a\n\tb\n c\n\n"
	. join('', map { "line $_ \t \n" } 1 .. 50) . ".\n..\n.x\n\n\n\t\n \n" . 'x' x 998 . "\n\xff\xfe\x80\n" . "last lines\n\n\n";
my $message = write_file('message', $given);

# The next message that arrives, behind its Received field.
my $seen = 0;
sub arrived {
	my $path = "$receiver->{dir}/mail/" . ++$seen;
	Sekisho::wait_for(30, sub { -e $path }) or return '';
	return Peers::read_file($path) =~ s/^Received: [^\n]*\r\n(?:\t[^\n]*\r\n)*//r;
}

# The attached file; of a patch, what it changes.
sub attached {
	my ($mail) = @_;
	my $parser = MIME::Parser->new;
	$parser->output_to_core(1);
	$parser->tmp_to_core(1);
	my ($part) = grep { ($_->head->recommended_filename // '') =~ /^data\.bin$|\.patch$/ } $parser->parse_data($mail)->parts_DFS;
	return '' unless $part;
	return $part->bodyhandle->as_string unless $part->head->recommended_filename =~ /\.patch$/;
	my $work = File::Temp->newdir;
	my $patch = write_file('patch', $part->bodyhandle->as_string =~ s/\r\n/\n/gr);
	system("cd $work && git apply $patch");
	return Peers::read_file("$work/data.bin");
}

for my $name (sort keys %Clients::CLIENTS) {
	my $client = $Clients::CLIENTS{$name};
	for my $implicit (0, 1) {
		my $how = { service => $s, account => $me, to => 'carol@example.org', implicit => $implicit, password => $Sekisho::PASSWORD };
		my $by = "$name, " . ($implicit ? 'implicit TLS' : 'STARTTLS');
		if ($client->{compose}) {
			is($client->{compose}->($how, 'with a file', $file), 0, "$by: a message with a file is taken") or diag(Clients::say_more()), next;
			my $mail = arrived();
			like($mail, qr/^Subject: (?:\[.*\] )?with a file\r$/m, "$by: it arrives");
			ok(attached($mail) eq $data, "$by: the file is the same") or diag substr $mail, 0, 1500;
		}
		if (defined $client->{exact}) {
			is($client->{send}->($how, $message), 0, "$by: a message as given is taken") or diag(Clients::say_more()), next;
			my $mail = arrived();
			ok($mail eq ($given . $client->{exact}) =~ s/\n/\r\n/gr, "$by: all of it is the same") or diag length $mail, "\n", substr $mail, 0, 1500;
		}
	}
}
ok(Sekisho::wait_for(10, sub { my $a = $s->json('queue', 'audit'); $a->{conserved} && $a->{queued} == 0 }), 'the audit agrees');
is($s->stop, 0, 'stops cleanly');
done_testing;

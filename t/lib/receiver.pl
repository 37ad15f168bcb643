#!/usr/bin/perl
# A mail server that keeps each message as the octets that came between 354 and the final dot, dots un-stuffed and nothing else done to them
# (smtp-sink loses every CR): receiver.pl ADDRESS PORT DIRECTORY. Messages are 1, 2, 3 … there, whole once they have their name.
use strict;
use warnings;
use IO::Socket::INET;

my ($address, $port, $directory) = @ARGV;
my $listener = IO::Socket::INET->new(Listen => 100, LocalAddr => $address, LocalPort => $port, ReuseAddr => 1) or die $!;
$SIG{CHLD} = 'IGNORE';
while (my $peer = $listener->accept) {
	next if fork // die $!;
	binmode $peer;
	my $say = sub { syswrite $peer, "$_[0]\r\n" };
	$say->('220 receiver.example.test ESMTP');
	local $/ = "\n";
	while (defined(my $line = <$peer>)) {
		if ($line =~ /^EHLO/i) { $say->("250-receiver.example.test\r\n250 8BITMIME") }
		elsif ($line =~ /^QUIT/i) { $say->('221 bye'); last }
		elsif ($line !~ /^DATA/i) { $say->('250 yes') }
		else {
			$say->('354 go');
			my $message = '';
			while (defined($line = <$peer>) && !($line eq ".\r\n" && $message =~ /(?:^|\r\n)\z/)) {
				$line =~ s/^\.// if $message =~ /(?:^|\r\n)\z/;
				$message .= $line;
			}
			last unless defined $line;
			open my $f, '>:raw', "$directory/.$$" or die $!;
			print $f $message;
			close $f;
			my $n = 1;
			$n++ until link "$directory/.$$", "$directory/$n";
			unlink "$directory/.$$";
			$say->('250 kept');
		}
	}
	exit;
}

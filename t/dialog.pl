#!/usr/bin/perl
# Plays the conversations of t/dialog/*.dialog against a running server and prints TAP, one test per file.
#
#   t/dialog.pl --submission 127.0.0.1:1587 --submissions 127.0.0.1:1465 t/dialog/*.dialog
#
# A file is a sequence of lines:
#   # text                 a comment; the first line says what the conversation proves
#   !connect 587 | 465     opens the connection: STARTTLS port, or implicit TLS
#   !tls                   starts TLS on it (after STARTTLS was answered)
#   C: text                sends text and CRLF. %AUTH% is the demo account's PLAIN response, base64; %x{N}% is N times "x"
#   !raw "text"            sends text with \r \n \t \0 \\ \" \xHH, without CRLF
#   S: regex               reads one line, which must match from start to end
#   S*: regex              reads lines up to and including the last line of a reply ("250 " rather than "250-"); one must match
#   S!: regex              likewise, and none may match
#   !maybe regex           if the server says a line before it closes, it must match
#   !eof                   the server must have closed
#   !sleep seconds
# A line that is not answered within --timeout seconds (20) fails.
use strict;
use warnings;
use Getopt::Long;
use IO::Select;
use IO::Socket::INET;
use IO::Socket::SSL;
use MIME::Base64;

my %port = (587 => '127.0.0.1:1587', 465 => '127.0.0.1:1465');
my $timeout = 20;
my $account = 'alice@example.test';
my $password = 'sekisho-demo';
GetOptions('submission=s' => \$port{587}, 'submissions=s' => \$port{465}, 'timeout=f' => \$timeout,
	'account=s' => \$account, 'password=s' => \$password) && @ARGV
	or die "usage: dialog.pl --submission host:port --submissions host:port file...\n";
$SIG{PIPE} = 'IGNORE';

my ($sock, $buf);

sub secure {
	die "clear text is left over before TLS\n" if length $buf;
	IO::Socket::SSL->start_SSL($sock, SSL_verify_mode => SSL_VERIFY_NONE, Timeout => $timeout)
		or die "TLS failed: $IO::Socket::SSL::SSL_ERROR\n";
}

sub fill {
	my $chunk;
	my $end = time + $timeout;
	for (;;) {
		my $ready = (ref $sock eq 'IO::Socket::SSL' && $sock->pending) || IO::Select->new($sock)->can_read(1);
		if ($ready) {
			my $n = sysread($sock, $chunk, 65536);
			return 0 if defined $n && $n == 0;
			if (defined $n) { $buf .= $chunk; return 1 }
			return 0 unless $!{EAGAIN} || $!{EINTR};
		}
		die "no answer within $timeout s\n" if time >= $end;
	}
}

sub line {
	while ($buf !~ /\n/) {
		fill() or die "server closed the connection\n";
	}
	$buf =~ s/^([^\n]*)\n//;
	my $line = $1;
	$line =~ s/\r$// or die "bare LF in '$line'\n";
	return $line;
}

sub send_all {
	my ($text) = @_;
	while (length $text) {
		my $n = syswrite($sock, $text, 16384);
		if (!defined $n) {
			next if $!{EAGAIN} || $!{EINTR};
			die "cannot send: $!\n";
		}
		substr($text, 0, $n) = '';
	}
}

sub expand {
	my ($text) = @_;
	my $auth = encode_base64("\0$account\0$password", '');
	$text =~ s/%AUTH%/$auth/g;
	$text =~ s/%(.)\{(\d+)\}%/$1 x $2/ge;
	return $text;
}

my %escape = (r => "\r", n => "\n", t => "\t", 0 => "\0", '\\' => '\\', '"' => '"');

sub step {
	local $_ = shift;
	if (/^\s*(#|$)/) { return }
	elsif (/^!connect (587|465)$/) {
		$buf = '';
		$sock = IO::Socket::INET->new(PeerAddr => $port{$1}, Timeout => $timeout) or die "cannot connect to $port{$1}: $!\n";
		secure() if $1 == 465;
	}
	elsif (/^!tls$/) { secure() }
	elsif (/^!sleep ([\d.]+)$/) { select undef, undef, undef, $1 }
	elsif (/^!maybe (.*)$/) {
		my $want = $1;
		while ($buf !~ /\n/) { fill() or return }
		my $got = line();
		$got =~ /^(?:$want)$/ or die "expected /$want/ or the end, got '$got'\n";
	}
	elsif (/^!eof$/) {
		while (!length $buf) { fill() or return }
		die "expected the end, got '$buf'\n";
	}
	elsif (/^!raw "(.*)"$/) {
		my $text = expand($1);
		$text =~ s/\\(x([0-9a-fA-F]{2})|.)/defined $2 ? chr hex $2 : $escape{$1} \/\/ $1/ge;
		send_all($text);
	}
	elsif (/^C: ?(.*)$/) { send_all(expand($1) . "\r\n") }
	elsif (/^S: (.*)$/) {
		my ($want, $got) = ($1, line());
		$got =~ /^(?:$want)$/ or die "expected /$want/, got '$got'\n";
	}
	elsif (/^S([*!]): (.*)$/) {
		my ($kind, $want, $hit, @all) = ($1, $2, 0);
		do {
			push @all, line();
			$hit = 1 if $all[-1] =~ /^(?:$want)$/;
		} while ($all[-1] =~ /^\d\d\d-/);
		die "expected /$want/ among: @all\n" if $kind eq '*' && !$hit;
		die "did not expect /$want/ among: @all\n" if $kind eq '!' && $hit;
	}
	else { die "not understood: $_\n" }
}

print '1..', scalar(@ARGV), "\n";
my ($test, $failed) = (0, 0);
for my $file (@ARGV) {
	$test++;
	my ($title, $number) = ($file, 0);
	eval {
		open my $in, '<', $file or die "cannot open: $!\n";
		while (my $text = <$in>) {
			chomp $text;
			$number++;
			$title = $1 if $number == 1 && $text =~ /^#\s*(.*)/;
			step($text);
		}
	};
	my $error = $@;
	close $sock if $sock;
	undef $sock;
	$title =~ tr/#/ /;
	if ($error) {
		$failed++;
		print "not ok $test - $title\n# $file:$number: $error";
	} else {
		print "ok $test - $title\n";
	}
}
exit($failed ? 1 : 0);

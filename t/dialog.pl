#!/usr/bin/perl
# Plays the conversations of t/dialog/*.dialog against a running server and prints TAP, one test per file.
#
#   t/dialog.pl --submission 127.0.0.1:1587 --submissions 127.0.0.1:1465 t/dialog/*.dialog
#
# A file is a sequence of lines:
#   # text                 a comment; the first line says what the conversation proves
#   !connect 587 | 465     opens the connection: STARTTLS port, or implicit TLS
#   !tls                   starts TLS on it (after STARTTLS was answered)
#   !login                 connects to 465, reads the greeting, says EHLO and logs in
#   !mail                  opens a transaction for bob@example.net
#   !data                  likewise, up to the answer to DATA
#   !queued                reads the acceptance of a message
#   !quit                  says QUIT and sees the connection closed
#   C: text                sends text and CRLF. %AUTH% is the demo account's PLAIN response, base64; %x{N}% is N times "x"
#   !raw "text"            sends text with \r \n \t \0 \\ \" \xHH, without CRLF
#   S: regex               reads one line, which must match from start to end
#   S*: regex              reads lines up to and including the last line of a reply ("250 " rather than "250-"); one must match
#   S!: regex              likewise, and none may match
#   L: regex               a line of the mail that was queued last, as it leaves; one must match from start to end
#   L!: regex              likewise, and none may match
#   !maybe regex           if the server says a line before it closes, it must match
#   !eof                   the server must have closed
#   !sleep seconds
# A line that is not answered within --timeout seconds (20) fails.
#
# --slices says how the octets travel; what is said may not depend on it:
#   lines    as the file has them (default)
#   octets   one at a time
#   whole    all that is sent up to the next !tls, !sleep, !maybe or !eof in one piece, pipelining everything
#   random   the same, cut at random; the cuts follow from --seed and the file's name
# Several, joined by commas, play each file once each. --jobs plays so many at a time.
#
# --left is where mail that leaves arrives, a file for each message; without it nobody looks, and L lines prove nothing.
use strict;
use warnings;
use Getopt::Long;
use IO::Select;
use IO::Socket::INET;
use IO::Socket::SSL;
use MIME::Base64;
use POSIX ();
use Socket qw(IPPROTO_TCP TCP_NODELAY);

my %port = (587 => '127.0.0.1:1587', 465 => '127.0.0.1:1465');
my $timeout = 20;
my $account = 'alice@example.test';
my $password = 'sekisho-demo';
my ($slices, $seed, $jobs, $left) = ('lines', 1, 1, '');
GetOptions('submission=s' => \$port{587}, 'submissions=s' => \$port{465}, 'timeout=f' => \$timeout,
	'account=s' => \$account, 'password=s' => \$password, 'slices=s' => \$slices, 'seed=i' => \$seed, 'jobs=i' => \$jobs, 'left=s' => \$left) && @ARGV
	or die "usage: dialog.pl --submission host:port --submissions host:port [--slices lines,octets,whole,random] file...\n";
$SIG{PIPE} = 'IGNORE';

my ($sock, $buf, $slicing, $sent);
my ($queued, %mail, %looked_at); # the id that was said last; mail that has left, by id; files that were read

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
	$queued = $1 if $line =~ /^250 2\.0\.0 Queued as ([0-9a-z]+)/;
	return $line;
}

# The lines of the mail that was queued last.
sub lines_left {
	my $end = time + $timeout;
	for (;;) {
		for my $path (grep { !$looked_at{$_}++ } glob "$left/*") {
			local $/;
			open my $in, '<:raw', $path or next;
			my $text = <$in>;
			$mail{$1} = $text if $text =~ /^\tid ([0-9a-z]+);\r$/m;
		}
		return split /\r\n/, $mail{$queued} if $mail{$queued};
		die "message $queued has not left within $timeout s\n" if time >= $end;
		select undef, undef, undef, 0.02;
	}
}

sub send_all {
	my ($text) = @_;
	while (length $text) {
		# After some thousand octets only the ends of what is sent at once are still interesting.
		my $size = $slicing eq 'octets' && ($sent < 6000 || length $text < 8) ? 1
			: $slicing eq 'octets' ? length($text) - 7
			: $slicing eq 'random' ? 1 + int rand(rand() < 0.5 ? 8 : 2000) : 16384;
		my $n = syswrite($sock, $text, $size);
		if (!defined $n) {
			next if $!{EAGAIN} || $!{EINTR};
			return if $!{EPIPE} || $!{ECONNRESET}; # whether the server might close now, the next lines say
			die "cannot send: $!\n";
		}
		substr($text, 0, $n) = '';
		$sent += $n;
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

my %macro = (
	login => ['!connect 465', 'S: 220 \S+ ESMTP Sekisho', 'C: EHLO client.example.test', 'S*: 250-AUTH .*PLAIN.*',
		'C: AUTH PLAIN %AUTH%', 'S: 235 2\.7\.0 .*'],
	mail => ['C: MAIL FROM:<alice@example.test>', 'S: 250 2\.1\.0 .*', 'C: RCPT TO:<bob@example.net>', 'S: 250 2\.1\.5 .*'],
	queued => ['S: 250 2\.0\.0 Queued as [0-9a-z]{26}'],
	quit => ['C: QUIT', 'S: 221 2\.0\.0 .*', '!eof'],
);
$macro{data} = [@{$macro{mail}}, 'C: DATA', 'S: 354 .*'];

# A file as [line number, what to do, with what]; what is sent is expanded here.
sub steps {
	my ($file, $title) = @_;
	my @steps;
	open my $in, '<', $file or die "cannot open: $!\n";
	while (my $text = <$in>) {
		chomp $text;
		$$title = $1 if $. == 1 && $text =~ /^#\s*(.*)/;
		for ($text =~ /^!(\w+)$/ && $macro{$1} ? @{$macro{$1}} : $text) {
			if (/^\s*(#|$)/) { next }
			elsif (/^!(connect) (587|465)$/ || /^!(tls|eof)$/ || /^!(sleep) ([\d.]+)$/ || /^!(maybe) (.*)$/ || /^(S[*!]?|L!?): (.*)$/) {
				push @steps, [$., $1, $2];
			}
			elsif (/^C: ?(.*)$/) { push @steps, [$., 'send', expand($1) . "\r\n"] }
			elsif (/^!raw "(.*)"$/) {
				my $raw = expand($1);
				$raw =~ s/\\(x([0-9a-fA-F]{2})|.)/defined $2 ? chr hex $2 : $escape{$1} \/\/ $1/ge;
				push @steps, [$., 'send', $raw];
			}
			else { die "not understood: $_\n" }
		}
	}
	return @steps;
}

# Moves everything that is sent before the next barrier to where the first of it is sent.
sub pipelined {
	my ($first, @steps);
	for my $step (@_) {
		undef $first if $step->[1] !~ /^(send|S.?)$/;
		if ($step->[1] eq 'send' && $first) { $first->[2] .= $step->[2]; next }
		push @steps, $step = [@$step];
		$first = $step if $step->[1] eq 'send';
	}
	return @steps;
}

sub step {
	my ($what, $text) = @_;
	if ($what eq 'connect') {
		($buf, $sent) = ('', 0);
		$sock = IO::Socket::INET->new(PeerAddr => $port{$text}, Timeout => $timeout) or die "cannot connect to $port{$text}: $!\n";
		setsockopt $sock, IPPROTO_TCP, TCP_NODELAY, 1;
		secure() if $text == 465;
	}
	elsif ($what eq 'tls') { secure() }
	elsif ($what eq 'sleep') { select undef, undef, undef, $text }
	elsif ($what eq 'send') { send_all($text) }
	elsif ($what eq 'maybe') {
		while ($buf !~ /\n/) { fill() or return }
		my $got = line();
		$got =~ /^(?:$text)$/ or die "expected /$text/ or the end, got '$got'\n";
	}
	elsif ($what eq 'eof') {
		while (!length $buf) { fill() or return }
		die "expected the end, got '$buf'\n";
	}
	elsif ($what eq 'L' || $what eq 'L!') {
		return unless length $left;
		my @all = lines_left();
		my ($hit) = grep { /^(?:$text)$/ } @all;
		die "expected /$text/ in the mail that left: @all[0 .. ($#all < 30 ? $#all : 30)]\n" if $what eq 'L' && !defined $hit;
		die "did not expect '$hit' in the mail that left\n" if $what eq 'L!' && defined $hit;
	}
	elsif ($what eq 'S') {
		my $got = line();
		$got =~ /^(?:$text)$/ or die "expected /$text/, got '$got'\n";
	}
	else {
		my ($hit, @all) = (0);
		do {
			push @all, line();
			$hit = 1 if $all[-1] =~ /^(?:$text)$/;
		} while ($all[-1] =~ /^\d\d\d-/);
		die "expected /$text/ among: @all\n" if $what eq 'S*' && !$hit;
		die "did not expect /$text/ among: @all\n" if $what eq 'S!' && $hit;
	}
}

# The TAP line of one play, without "ok" and number, and what went wrong.
sub play {
	my ($file, $how) = @_;
	my ($title, $number) = ($file, 0);
	$slicing = $how;
	srand $seed + unpack '%32C*', $file =~ s/.*\///r;
	eval {
		my @steps = steps($file, \$title);
		@steps = pipelined(@steps) if $how eq 'whole' || $how eq 'random';
		for my $step (@steps) {
			$number = $step->[0];
			step(@$step[1, 2]);
		}
	};
	my $error = $@;
	close $sock if $sock;
	undef $sock;
	$title =~ tr/#/ /;
	$title .= " ($how)" if $how ne 'lines';
	return ($title, $error && "$file:$number: $error");
}

my @plays = map { my $how = $_; map { [$_, $how] } @ARGV } split /,/, $slices;
print '1..', scalar(@plays), "\n";
print "# random slices: --seed $seed\n" if $slices =~ /random/;
my @results;
for my $job (0 .. $jobs - 1) {
	pipe my $read, my $write or die "pipe: $!\n";
	push @results, $read;
	next if fork // die "fork: $!\n";
	for (my $i = $job; $i < @plays; $i += $jobs) {
		my ($title, $error) = play(@{$plays[$i]});
		$error =~ s/[\r\n]+/ /g;
		syswrite $write, "$title\t$error\n";
	}
	POSIX::_exit(0);
}
my $failed = 0;
for my $i (0 .. $#plays) {
	my $line = readline $results[$i % $jobs];
	my ($title, $error) = defined $line ? $line =~ /^(.*)\t(.*)$/ : ($plays[$i][0], 'the player died');
	$failed++ if $error;
	print $error ? 'not ' : '', 'ok ', $i + 1, " - $title\n";
	print "# $error\n" if $error;
}
exit($failed ? 1 : 0);

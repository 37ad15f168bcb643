#!/usr/bin/perl
# Setup: a service whose next hop is a server of this test, which notes each octet that it gets. An account sends every published false end of data with a
# second transaction behind it, by DATA and by BDAT, cut at the worst place.
# Expectation: exactly one message results, or none where it is refused; what the next hop sees is strict CRLF, holds no end but its own whatever one
# takes for an end, and is the content as it was sent but for its line ends.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use IO::Socket::INET;
use Test::More;

my @ends = (["LF.LF", "\n.\n"], ["LF.CRLF", "\n.\r\n"], ["LF.CR", "\n.\r"], ["CR.CR", "\r.\r"], ["CR.LF", "\r.\n"], ["CR.CRLF", "\r.\r\n"],
	["CRLF.CR", "\r\n.\r"], ["CRLF.LF", "\r\n.\n"], ["CRCRLF.CRCRLF", "\r\r\n.\r\r\n"], ["CRLF.CRCRLF", "\r\n.\r\r\n"], ["CRLF NUL.CRLF", "\r\n\0.\r\n"],
	["CRLF.NUL CRLF", "\r\n.\0\r\n"], ["CR NUL LF.CRLF", "\r\0\n.\r\n"], ["LFLF.LFLF", "\n\n.\n\n"]);
my $me = 'alice@example.test';
my $smuggled = "MAIL FROM:<$me>\r\nRCPT TO:<victim\@example.net>\r\nDATA\r\nFrom: $me\r\n\r\nsmuggled\r\n";

# Notes each data phase, as its octets come, up to the true end.
sub serve {
	my ($listener, $dir) = @_;
	my $pid = fork // die $!;
	return $pid if $pid;
	open STDOUT, '>', '/dev/null'; # whoever waits for the test does not wait for us
	open STDERR, '>', '/dev/null';
	$SIG{CHLD} = 'IGNORE';
	while (1) {
		my $c = $listener->accept or next;
		next if fork // die $!;
		my ($buf, $count) = ('', 0);
		syswrite $c, "220 ready\r\n";
		while (1) {
			while ($buf !~ /\r\n/) { sysread $c, $buf, 65536, length $buf or exit 0 }
			$buf =~ s/^(.*?)\r\n//s;
			my $line = $1;
			if ($line =~ /^EHLO/) { syswrite $c, "250-hop\r\n250-8BITMIME\r\n250 PIPELINING\r\n"; next }
			if ($line !~ /^DATA/) { syswrite $c, "250 ok\r\n"; next }
			syswrite $c, "354 go\r\n";
			while ($buf !~ /\r\n\.\r\n/) { sysread $c, $buf, 65536, length $buf or exit 0 }
			$buf =~ s/\A(.*?\r\n)\.\r\n//s;
			my $got = $1;
			open my $f, '>', "$dir/got.$$." . ++$count or die $!;
			print $f $got;
			close $f;
			syswrite $c, "250 taken\r\n";
		}
	}
}

my $server;
END { kill 'TERM', $server if $server }

for my $mode ('normalize', 'reject') {
	my $s = Sekisho->new(no_sink => 1, no_start => 1, conf => "content: { bare_line_ends: $mode }\n$Sekisho::UNLIMITED");
	my $listener = IO::Socket::INET->new(Listen => 64, LocalAddr => '127.0.0.1', LocalPort => $s->{ports}{sink}, ReuseAddr => 1) or die $!;
	mkdir "$s->{dir}/hop";
	$server = serve($listener, "$s->{dir}/hop");
	$s->start;
	$s->account($me);
	my $arrived = sub { map { my $n = $_; local $/; open my $f, '<:raw', $n or die $!; scalar <$f> } glob "$s->{dir}/hop/*" };

	my (%want, $sent);
	for my $end (@ends) {
		my ($name, $octets) = @$end;
		for my $by ('DATA', 'BDAT') {
			my $c = $s->login($me);
			my $mark = "mark-" . ++$sent . "-";
			my $content = "From: $me\r\nSubject: $mark\r\n\r\nx$octets$smuggled";
			$c->cmd("MAIL FROM:<$me>") =~ /^250/ && $c->cmd('RCPT TO:<bob@example.net>') =~ /^250/ or die;
			my $said;
			if ($by eq 'DATA') {
				$c->cmd('DATA') =~ /^354/ or die;
				$c->raw("$content.\r\n");
				$said = $c->reply;
			}
			else { # the first chunk ends with the dot
				my $cut = index($content, $octets) + index($octets, '.') + 1;
				$c->raw("BDAT $cut\r\n" . substr($content, 0, $cut) . 'BDAT ' . (length($content) - $cut) . " LAST\r\n" . substr $content, $cut);
				like($c->reply, qr/^250 2\.0\.0 $cut octets/, "$mode: $name by BDAT: the first chunk") or die;
				$said = $c->reply;
			}
			my $nul = $octets =~ /\0/;
			my $bare = $octets =~ /\r(?!\n)|(?<!\r)\n/;
			like($said, $nul ? qr/^554 5\.6\.0 .*NUL/ : $bare && $mode eq 'reject' ? qr/^554 5\.6\.0 .*bare/ : qr/^250 2\.0\.0 Queued/, "$mode: $name by $by");
			like($c->cmd('NOOP'), qr/^250 2\.0\.0 OK\r\n$/, 'and one reply only');
			$c->cmd('QUIT');
			next if $said !~ /^250/;
			$content =~ s/(\A|\r\n)\./$1/g if $by eq 'DATA';
			$content =~ s/\r\r\n|\r\n|\r|\n/\r\n/g;
			$content =~ s/^\./../mg;
			$want{$mark} = $content;
		}
	}
	Sekisho::wait_for(60, sub { ($s->json('queue', 'audit') // {})->{queued} == 0 }) or die $s->log;
	my @got = $arrived->();
	is(scalar @got, scalar keys %want, "$mode: as many messages as were accepted: " . keys %want);
	my ($same, $strict, $ends) = (0, 0, 0);
	for (@got) {
		my ($mark) = /^Subject: (mark-\d+-)/m;
		my $content = s/\A.*?(?=^From: )//msr;
		$same += $content eq delete $want{$mark};
		$strict += !/\r(?!\n)|(?<!\r)\n/;
		$ends += /[\r\n]\.[\r\n\0]|\A\.[\r\n]/;
	}
	is($same, @got, "$mode: each is what was sent");
	is($strict, @got, "$mode: each is strict CRLF");
	is($ends, 0, "$mode: none holds anything that could be taken for an end");
	kill 'TERM', $server;
	waitpid $server, 0;
	undef $server;
}
done_testing;

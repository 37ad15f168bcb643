# A next hop that offers and answers what the test says, and remembers what it heard. For what no real server does; each connection is a
# process of its own, all stop when the object goes.
package NextHop;
use strict;
use warnings;
use File::Temp qw(tempdir);
use IO::Socket::INET;
use IO::Socket::SSL;
use Sekisho;
use Peers;
our @ISA = 'Peers'; # its end

# new(port => …, address => …, cert => …, key => …): with a certificate it offers STARTTLS.
sub new {
	my ($class, %self) = @_;
	my $self = bless { address => '127.0.0.1', %self, owner => $$, dir => tempdir('sekisho-hop-XXXXXX', TMPDIR => 1, CLEANUP => 1) }, $class;
	my $listener = IO::Socket::INET->new(Listen => 64, LocalAddr => $self->{address}, LocalPort => $self->{port}, ReuseAddr => 1) or die $!;
	$self->offers;
	$self->{pid} = fork // die $!;
	return $self if $self->{pid};
	$SIG{CHLD} = 'IGNORE';
	$SIG{TERM} = sub { kill 'KILL', -$$; };
	setpgrp;
	while (1) {
		my $c = $listener->accept or next;
		my $pid = fork // die $!;
		next if $pid;
		$SIG{TERM} = 'DEFAULT';
		eval { $self->serve($c) };
		require POSIX;
		POSIX::_exit(0);
	}
}

# The keywords of its EHLO, from the next one on; { VERB => "reply" } refuses verbs ("close": without a word, "silent": never), { TLS => [keywords] } are offered after STARTTLS only.
sub offers {
	my ($self, @offers) = @_;
	my %refuse = map { %$_ } grep { ref } @offers;
	my $tls = delete $refuse{TLS} // [];
	open my $f, '>', "$self->{dir}/offers.new" or die $!;
	print $f join("\t", grep { !ref } @offers), "\n", join("\t", @$tls), "\n", join("\t", %refuse), "\n";
	close $f;
	rename "$self->{dir}/offers.new", "$self->{dir}/offers";
	return $self;
}

sub script {
	my ($self) = @_;
	open my $f, '<', "$self->{dir}/offers" or die $!;
	return map { chomp; [split /\t/] } <$f>;
}

sub note {
	my ($self, $line) = @_;
	open my $f, '>>', "$self->{dir}/heard" or die $!;
	syswrite $f, "$line\n";
}

# The command lines it heard, as they came; with a pattern only those.
sub heard {
	my ($self, $pattern) = @_;
	open my $f, '<', "$self->{dir}/heard" or return;
	chomp(my @lines = <$f>);
	return grep { !defined $pattern || /$pattern/ } @lines;
}

# What it took, each as it came, without dot-stuffing; a chunk is octets.
sub taken {
	my ($self) = @_;
	return map { open my $f, '<:raw', $_; local $/; scalar <$f> } sort glob "$self->{dir}/taken.*";
}

# The addresses from which that came which fits the pattern, each once.
sub sources {
	my ($self, $pattern) = @_;
	my %seen;
	for my $name (glob "$self->{dir}/taken.*") {
		open my $f, '<:raw', $name or next;
		local $/;
		$seen{ ($name =~ /taken\.\d+\.\d+\.(.*)$/)[0] } = 1 if <$f> =~ $pattern;
	}
	my @sources = sort keys %seen;
	return @sources;
}

sub serve {
	my ($self, $c) = @_;
	my ($buf, $tls, $content, $count) = ('', 0, '', 0);
	my $peer = $c->peerhost;
	my $say = sub { syswrite $c, "$_[0]\r\n" or die };
	my $more = sub { sysread($c, $buf, 65536, length $buf) or die };
	my $line = sub {
		$more->() while $buf !~ /\n/;
		$buf =~ s/^([^\n]*)\n//;
		return $1 =~ s/\r$//r;
	};
	my $keep = sub {
		my $name = sprintf '%s/taken.%.6f.%s', $self->{dir}, Time::HiRes::time(), $peer;
		open my $f, '>:raw', "$self->{dir}/keep.$$" or die $!;
		print $f $_[0];
		close $f;
		rename "$self->{dir}/keep.$$", $name;
	};
	$say->('220 hop ESMTP');
	while (1) {
		my $command = $line->();
		$self->note($command);
		my ($offers, $secret, $refuse) = $self->script;
		my %refuse = @{ $refuse // [] };
		my $verb = uc(($command =~ /^(\w+)/)[0] // '');
		if ($verb eq 'BDAT') {
			my ($size, $last) = $command =~ /^BDAT (\d+)( LAST)?$/ or die;
			$more->() while length $buf < $size;
			$content .= substr $buf, 0, $size, '';
			$keep->($content), $content = '' if $last && !$refuse{BDAT};
		}
		return if ($refuse{$verb} // '') eq 'close';
		if (($refuse{$verb} // '') eq 'silent') { $more->() while 1 }
		if ($refuse{$verb}) { $say->($refuse{$verb}); next }
		if ($verb eq 'EHLO') {
			my @all = (@$offers, $self->{cert} && !$tls ? 'STARTTLS' : (), $tls ? @{ $secret // [] } : ());
			$say->('250-hop'), $say->(join "\r\n", (map { "250-$_" } @all), '250 HELP');
		} elsif ($verb eq 'STARTTLS') {
			$say->('220 go');
			$c = IO::Socket::SSL->start_SSL($c, SSL_server => 1, SSL_cert_file => $self->{cert}, SSL_key_file => $self->{key}) or die;
			$tls = 1;
		} elsif ($verb eq 'AUTH') {
			$say->('235 2.7.0 known');
		} elsif ($verb eq 'DATA') {
			$say->('354 go');
			my $text = '';
			while ((my $next = $line->()) ne '.') { $text .= ($next =~ s/^\.//r) . "\r\n" }
			$keep->($text);
			$say->($refuse{'.'} // '250 2.0.0 taken');
		} elsif ($verb eq 'QUIT') {
			$say->('221 bye');
			return;
		} else {
			$say->('250 2.0.0 ok');
		}
	}
}

1;

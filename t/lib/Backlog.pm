# A large queue for dead domains: a name server that knows them, addresses where nobody listens or that never answer, and services whose spool is
# filled with mail for them (t/bench/fill.c).
package Backlog;
use strict;
use warnings;
use IO::Select;
use IO::Socket::INET;
use Sekisho;
use Peers;

# new(domains => N, silent => K): each domain has a host, hence a site, of its own; every K-th is silent (its backlog is full, so that connecting neither
# works nor fails), the others refuse at once.
sub new {
	my ($class, %self) = @_;
	my $self = bless { domains => 10000, silent => 10, port => Sekisho::free_port(), dns => Sekisho::free_port(), %self }, $class;
	my $zone = '';
	for my $n (0 .. $self->{domains} - 1) {
		my $address = is_silent($self, $n) ? '127.2.0.1' : sprintf '127.1.%d.%d', $n >> 8, $n & 255;
		$zone .= "d$n.dead. MX 10 h$n.dead.\nh$n.dead. A $address\n";
	}
	$self->{nsd} = Peers->nsd($self->{dns}, $zone);
	my $listener = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.2.0.1', LocalPort => $self->{port}) or die $!;
	my @waiting = $listener;
	do { push @waiting, IO::Socket::INET->new(PeerAddr => '127.2.0.1', PeerPort => $self->{port}, Blocking => 0) }
		while IO::Select->new($waiting[-1])->can_write(0.2);
	$self->{waiting} = \@waiting;
	return $self;
}

sub is_silent { my ($self, $n) = @_; return $self->{silent} && $n % $self->{silent} == 0 }

# A service of which example.org is at the port (its own sink's, if not given), all else is found by MX. Stopped.
sub service {
	my ($self, %opt) = @_;
	my $s = Sekisho->new(no_start => 1, no_sink => 1);
	my $hop = $opt{hop} // $s->{ports}{sink};
	$s->{extra} = <<"CONF" . ($opt{conf} // '');
${Sekisho::UNLIMITED}limits: { messages: 1000000 }
routes:
  example.org: "127.0.0.1:$hop"
dns: { servers: ["127.0.0.1:$self->{dns}"] }
relay: { port: $self->{port}@{[ $opt{relay} ? ", $opt{relay}" : '' ]} }
CONF
	$s->write_conf;
	$s->start;
	$s->account($_) for @{ $opt{accounts} };
	$s->stop;
	return $s;
}

# Into its spool: count messages in the lane, due evenly from so many seconds from now over so many seconds. The seconds it took.
sub fill {
	my ($self, $s, $lane, $count, $from, $span) = @_;
	my $took = `$Sekisho::BUILD/bench/fill $s->{dir}/spool $count $self->{domains} $lane $from $span`;
	die "fill failed\n" if $?;
	return $took + 0;
}

# KB of memory of its own that the queue has now; 0 when it is not there.
sub memory {
	my ($s) = @_;
	my ($pid) = $s->pids('sekisho-queue') or return 0;
	return (Peers::read_file("/proc/$pid/status") =~ /^RssAnon:\s+(\d+) kB/m)[0] // 0;
}

1;

# What every whole-system test stands on: a service of its own on free loopback ports, a receiving smtp-sink, an SMTP client
# that shows each reply, and waiting for conditions instead of for a while.
package Sekisho;
use strict;
use warnings;
use Cwd qw(abs_path);
use File::Temp qw(tempdir);
use File::Basename qw(dirname);
use IO::Socket::INET;
use IO::Socket::SSL;
use IPC::Open3;
use JSON::PP;
use MIME::Base64;
use POSIX qw(:sys_wait_h);
use Scalar::Util qw(weaken);
use Time::HiRes qw(time sleep);

our $TOP   = abs_path(dirname(__FILE__) . '/../..');
our $BUILD = abs_path($ENV{SEKISHO_BUILD} // "$TOP/build/test");
our $PASSWORD = 'sekisho-demo';
# For tests that send much and fast and prove something else.
our $UNPACED = 'burst_recipients: off, burst_messages: off';
our $UNLIMITED = "quota: { recipients: 10000000/day, messages: 10000000/day, $UNPACED }\n";

# A peer that was killed is an answer, not a reason to die.
$SIG{PIPE} = 'IGNORE';
my %live;     # services not yet destroyed
my $reported; # a process said that it is broken, which no test may survive

# A port that was free a moment ago. Below the range from which the kernel gives every connection its own end: from there, one of a neighbour's
# would take it before the service does.
sub free_port {
	for (1 .. 100) {
		my $port = 10000 + int rand 22000;
		return $port if IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1', LocalPort => $port);
	}
	die "no free port: $!";
}

# Waits until the condition holds; false when it did not within the given seconds.
sub wait_for {
	my ($seconds, $condition) = @_;
	my $end = time + $seconds;
	while (1) {
		my $result = $condition->();
		return $result if $result;
		return $result if time > $end;
		sleep 0.02;
	}
}

# new(conf => "extra YAML lines", listen => "lines of that section", no_start => 1, env => {…}): a directory, certificate, sink and running service.
sub new {
	my ($class, %opt) = @_;
	my $dir = tempdir('sekisho-XXXXXX', TMPDIR => 1, CLEANUP => 1);
	chmod 0711, $dir;
	mkdir "$dir/delivered";
	chmod 0777, "$dir/delivered";
	my $self = bless {
		dir => $dir, owner => $$, env => $opt{env} // {}, extra => $opt{conf} // '', listen => $opt{listen} // '', ports => {
			submission => free_port(), submissions => free_port(), sink => free_port(), dns => free_port() },
	}, $class;
	$self->{env}{SEKISHO_TEST_CLOCK} = $self->clock_file if $opt{clock};
	system("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=localhost "
		. "-addext 'subjectAltName=DNS:localhost,IP:127.0.0.1' -keyout $dir/key.pem -out $dir/cert.pem 2>/dev/null") == 0
		or die 'openssl cannot make a certificate';
	$self->write_conf;
	$self->start_sink unless $opt{no_sink};
	$self->start unless $opt{no_start};
	return $self;
}

# Option clock => 1 gives the service the shared test clock of core/clock.h: wall and monotonic offset and a change counter.
sub clock_file {
	my ($self) = @_;
	my $path = "$self->{dir}/clock";
	return $path if -e $path;
	open my $f, '>', $path or die $!;
	binmode $f;
	print $f pack('qqQ', 0, 0, 0);
	close $f;
	chmod 0644, $path;
	return $path;
}

# Always from the file: a test may have forked.
sub read_clock {
	my ($self) = @_;
	open my $f, '<:raw', $self->clock_file or die $!;
	local $/;
	return unpack 'qqQ', <$f>;
}

# Adds milliseconds to the offsets of wall and monotonic clock; the counter changes last, as the loops re-arm their timers then.
sub shift_clock {
	my ($self, $wall, $mono) = @_;
	my @clock = $self->read_clock;
	open my $f, '+<', $self->clock_file or die $!;
	binmode $f;
	syswrite $f, pack('qq', $clock[0] + $wall, $clock[1] + $mono);
	syswrite $f, pack('Q', $clock[2] + 1);
	close $f;
}

# Time passes.
sub advance { my ($self, $ms) = @_; $self->shift_clock($ms, $ms) }

# Somebody sets the wall clock.
sub jump { my ($self, $ms) = @_; $self->shift_clock($ms, 0) }

# The wall clock as the service sees it, in milliseconds.
sub now { my ($self) = @_; return int(time * 1000) + ($self->read_clock)[0] }

sub write_conf {
	my ($self) = @_;
	my $p = $self->{ports};
	my $privilege = $> == 0 ? 'privilege: { user: nobody, network_user: nobody }' : '';
	my $routes = $self->{extra} =~ /^routes:/m ? '' : qq(routes:\n  "*": "127.0.0.1:$p->{sink}"\n);
	# Nobody outside is asked: without a name server of its own a test has one that does not answer.
	my $dns = $self->{extra} =~ /^dns:/m ? '' : qq(dns: { servers: ["127.0.0.1:$p->{dns}"], timeout: 1s }\n);
	open my $f, '>', "$self->{dir}/sekisho.yaml" or die $!;
	print $f <<"CONF";
hostname: mail.example.test
listen:
  submission: ["127.0.0.1:$p->{submission}"]
  submissions: ["127.0.0.1:$p->{submissions}"]
  $self->{listen}
tls: { certificate: $self->{dir}/cert.pem, key: $self->{dir}/key.pem }
spool: $self->{dir}/spool
accounts: $self->{dir}/accounts
admin: { socket: $self->{dir}/admin.sock }
$privilege
$routes$dns$self->{extra}
CONF
	close $f;
}

sub start_sink {
	my ($self, @args) = @_;
	my $peers = "$TOP/build/peers";
	my $pid = fork // die $!;
	if (!$pid) {
		chdir "$self->{dir}/delivered" or die $!;
		$ENV{LD_LIBRARY_PATH} = "$peers/usr/lib/postfix";
		open STDERR, '>>', "$self->{dir}/sink.log";
		exec "$peers/usr/sbin/smtp-sink", ($> == 0 ? ('-u', 'nobody') : ()), '-d', 'm.', @args,
			"127.0.0.1:$self->{ports}{sink}", 512;
		die "smtp-sink: $!";
	}
	$self->{sink} = $pid;
	wait_for(10, sub { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{ports}{sink}) }) or die 'smtp-sink does not listen';
}

# Option before runs in the process that becomes sekishod; option programs names another directory of programs.
sub launch {
	my ($self, %opt) = @_;
	my $pid = fork // die $!;
	if (!$pid) {
		$ENV{$_} = $self->{env}{$_} for keys %{$self->{env}};
		open STDIN, '<', '/dev/null';
		open STDERR, '>>', "$self->{dir}/log" or die $!;
		open STDOUT, '>&', \*STDERR;
		$opt{before}->() if $opt{before};
		exec(($opt{programs} // $BUILD) . '/sekishod', '-c', "$self->{dir}/sekisho.yaml");
		die "sekishod: $!";
	}
	$self->{daemon} = $pid;
}

sub start {
	my ($self, %opt) = @_;
	$self->launch(%opt);
	return $self->wait_ready;
}

sub wait_ready {
	my ($self) = @_;
	my $ready = wait_for(30, sub {
		my $status = $self->json('status');
		return $? == 0 && ref $status && !grep { $_->{state} ne 'up' } @{ $status->{processes} };
	});
	die "the service did not get ready:\n" . $self->log unless $ready;
	return $self;
}

sub stop {
	my ($self) = @_;
	return 0 unless $self->{daemon};
	kill 'TERM', $self->{daemon};
	waitpid $self->{daemon}, 0;
	delete $self->{daemon};
	my $status = $?;
	$self->check_log;
	return $? = $status;
}

# Notes what a sanitizer or an assertion reported in any process of the service.
sub check_log {
	my ($self) = @_;
	my $log = $self->log;
	my $at = $self->{checked} // 0;
	return if length $log <= $at; # nothing new, or its directory is gone already
	$self->{checked} = length $log;
	note_report(substr $log, $at);
}

sub note_report {
	my ($text) = @_;
	return unless $text =~ /^(?=.*(?:ERROR: \w+Sanitizer|runtime error:|LeakSanitizer|Assertion .* failed))/m;
	$reported = 1;
	print STDERR map { "# $_\n" } 'a process is broken:', split /\n/, substr $text, $-[0], 20000;
}

# Services that a test left to the end stop here, while their directories and its exit status still exist.
END {
	my $status = $?;
	for my $self (grep { defined && $_->{owner} == $$ } values %live) {
		$self->stop;
		$self->check_log;
		$self->stop_sink;
	}
	$? = $status || ($reported ? 1 : 0);
}

sub stop_sink {
	my ($self) = @_;
	return unless $self->{sink};
	kill 'TERM', $self->{sink};
	waitpid $self->{sink}, 0;
	delete $self->{sink};
}

sub DESTROY {
	my ($self) = @_;
	return unless $self->{owner} == $$;
	local $?;
	$self->stop;
	$self->check_log;
	$self->stop_sink;
	delete $live{$self};
}

sub log {
	my ($self) = @_;
	local $/;
	open my $f, '<', "$self->{dir}/log" or return '';
	return <$f>;
}

# Runs sekishoctl; its output, and its status in $?.
sub ctl {
	my ($self, @args) = @_;
	return $self->ctl_with('', @args);
}

sub ctl_with {
	my ($self, $input, @args) = @_;
	my $pid = open3(my $in, my $out, undef, "$BUILD/sekishoctl", '-s', "$self->{dir}/admin.sock", @args);
	local $SIG{PIPE} = 'IGNORE';
	print $in $input;
	close $in;
	my $text = do { local $/; <$out> } // '';
	waitpid $pid, 0;
	note_report($text);
	return $text;
}

# The decoded answer; undef when there was none, only words (a process is just being restarted).
sub json {
	my ($self, @args) = @_;
	my $text = $self->ctl('--json', @args);
	return eval { decode_json($text) };
}

# What is known of a message.
sub show {
	my ($self, $id) = @_;
	my $m = $self->json('queue', 'show', $id);
	return ref $m ? $m : {};
}

# The ids that "queue list" gives.
sub listed {
	my ($self, @args) = @_;
	return map { $_->{id} } @{ ($self->json('queue', 'list', @args) // {})->{messages} // [] };
}

# Sends a message, in the account's last session if that lives; its id.
sub submit {
	my ($self, $account, $body, @to) = @_;
	my $c = $self->{clients}{$account};
	$c = $self->{clients}{$account} = $self->login($account) || die "no login for $account" if !$c || ($c->cmd('NOOP') // '') !~ /^250/;
	my $said = $c->send_mail($account, \@to, $body);
	return $said =~ /^250 2\.0\.0 Queued as (\w+)/ ? $1 : die "not accepted for @to: $said";
}

sub account {
	my ($self, @names) = @_;
	for my $name (@names) {
		my $said = $self->ctl_with("$PASSWORD\n", 'account', 'add', $name);
		die "account add $name: $said" if $?;
	}
}

# Process ids by program name, from sekishod's own children; (name => pid) for one of each, list in scalar name order.
sub processes {
	my ($self) = @_;
	my @list;
	for my $stat (glob '/proc/[0-9]*/stat') {
		open my $f, '<', $stat or next;
		my $line = <$f> // next;
		my ($pid, $name, $parent) = $line =~ /^(\d+) \((.*?)\) \S (\d+)/ or next;
		push @list, [$name, $pid] if $parent == $self->{daemon} && $name =~ /^sekisho-/;
	}
	return @list;
}

sub pids {
	my ($self, $name) = @_;
	return map { $_->[1] } grep { !defined $name || $_->[0] eq $name } $self->processes;
}

# The delivered transactions, each as its whole dump.
sub delivered {
	my ($self) = @_;
	return map { my $n = $_; local $/; open my $f, '<', $n or (); <$f> } glob "$self->{dir}/delivered/*";
}

sub connect {
	my ($self, $kind) = @_;
	return Sekisho::Client->new($self->{ports}{$kind // 'submission'}, ($kind // '') eq 'submissions');
}

# A client that is logged in.
sub login {
	my ($self, $account, $kind) = @_;
	my $c = $self->connect($kind) or return;
	return unless $c->open_session;
	my $said = $c->cmd('AUTH PLAIN ' . encode_base64("\0$account\0$PASSWORD", ''));
	return $said =~ /^235/ ? $c : undef;
}

package Sekisho::Client;
use strict;
use warnings;

sub new {
	my ($class, $port, $tls) = @_;
	my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Timeout => 20) or return;
	my $self = bless { s => $s, buf => '', tls => 0 }, $class;
	$self->tls or return if $tls;
	return $self;
}

sub tls {
	my ($self) = @_;
	IO::Socket::SSL->start_SSL($self->{s}, SSL_verify_mode => 0, Timeout => 20) or return 0;
	return $self->{tls} = 1;
}

# Greeting, EHLO, and STARTTLS where it is needed.
sub open_session {
	my ($self) = @_;
	return 0 unless $self->reply =~ /^220/;
	return 0 unless $self->cmd('EHLO client.example.test') =~ /^250/m;
	return 1 if $self->{tls};
	return 0 unless $self->cmd('STARTTLS') =~ /^220/;
	return 0 unless $self->tls;
	return $self->cmd('EHLO client.example.test') =~ /^250/m;
}

# One whole reply, '' when the connection ended.
sub reply {
	my ($self) = @_;
	my $all = '';
	while (1) {
		while ($self->{buf} =~ s/^([^\n]*\n)//) {
			my $line = $1;
			$all .= $line;
			return $all unless $line =~ /^\d\d\d-/;
		}
		my $n = sysread $self->{s}, my $more, 65536;
		return $all unless $n;
		$self->{buf} .= $more;
	}
}

sub raw {
	my ($self, $octets) = @_;
	local $SIG{PIPE} = 'IGNORE';
	my $at = 0;
	while ($at < length $octets) {
		my $n = syswrite $self->{s}, $octets, length($octets) - $at, $at;
		return 0 unless $n;
		$at += $n;
	}
	return 1;
}

sub cmd {
	my ($self, $line) = @_;
	$self->raw("$line\r\n");
	return $self->reply;
}

# A whole transaction; the last reply.
sub send_mail {
	my ($self, $from, $to, $body) = @_;
	my $said = $self->cmd("MAIL FROM:<$from>");
	return $said unless $said =~ /^250/;
	for (ref $to ? @$to : $to) {
		$said = $self->cmd("RCPT TO:<$_>");
		return $said unless $said =~ /^250/;
	}
	$said = $self->cmd('DATA');
	return $said unless $said =~ /^354/;
	$body =~ s/^\./../mg;
	$self->raw("From: <$from>\r\nSubject: test\r\n\r\n$body\r\n.\r\n");
	return $self->reply;
}

1;

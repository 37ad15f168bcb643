#!/usr/bin/perl
# Setup: a service whose spool is a filesystem of its own of 40 MiB, in a mount namespace (which takes root). Relays are stopped while it fills.
# Expectation: new mail is refused with 452 4.3.1 before the disk is full, announced large mail first, and likewise when files run out or somebody else
# takes the rest of the disk; what was accepted is delivered once, and charged once; once there is room mail is taken again, by the same process.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use Test::More;

my @alone = ('unshare', '--mount', '--propagation', 'private');
if (!$ENV{SEKISHO_ALONE}) {
	plan skip_all => 'a filesystem of its own takes root' if $> != 0;
	plan skip_all => 'no mount namespaces here' if system("@alone mount -t tmpfs none /mnt 2>/dev/null") != 0;
	$ENV{SEKISHO_ALONE} = 1;
	exec @alone, $^X, $0;
}

my $s = Sekisho->new(no_start => 1, conf => "${Sekisho::UNLIMITED}limits: { messages: 10000 }\nmsa: { processes: 1 }\n");
my $spool = "$s->{dir}/spool";
mkdir $spool;
system('mount', '-t', 'tmpfs', '-o', 'size=40m,nr_inodes=400', 'none', $spool) == 0 or die;
chown +(getpwnam 'nobody')[2, 3], $spool;
chmod 0700, $spool;
$s->start;
$SIG{ALRM} = sub { die "hangs:\n" . $s->log };
alarm 300;
my $me = 'alice@example.test';
$s->account($me);
my $client;
my ($queue) = $s->pids('sekisho-queue');
my (%kept, $count);

sub signal_relays { kill $_[0], $s->pids('sekisho-relay') }
sub mail {
	my ($size) = @_;
	my $name = 'mail-' . ++$count . '-end';
	$client //= $s->login($me) or return '';
	my $said = $client->send_mail($me, 'carol@example.org', "$name\r\n" . ("x" x 78 . "\r\n") x ($size / 80));
	if ($said =~ /^250/) { $kept{$name} = 1 } else { undef $client }
	return $said;
}
sub announced { my ($size) = @_; $client //= $s->login($me); $client->cmd("MAIL FROM:<$me> SIZE=$size"); my $said = $client->cmd('RCPT TO:<carol@example.org>'); $client->cmd('RSET'); return $said }
sub times_logged { my ($event) = @_; return scalar grep { / $event / } split /\n/, $s->log }
sub queue_status { return ($s->json('status') // {})->{queue} // {} }
sub ballast { my ($octets) = @_; open my $f, '>>', "$spool/ballast" or die $!; for (1 .. $octets / 4096) { syswrite $f, "\0" x 4096 or last } }
sub accepts_again { return Sekisho::wait_for(30, sub { mail(100) =~ /^250/ }) }
sub all_delivered {
	my %arrived;
	for ($s->delivered) { $arrived{$1}++ if /^(mail-\d+-end)/m }
	return !grep { ($arrived{$_} // 0) != 1 } keys %kept;
}
sub drained { return Sekisho::wait_for(90, sub { my $a = $s->json('queue', 'audit'); $a && $a->{conserved} && !$a->{queued} && all_delivered() }) }

# --- mail fills it ---

like(announced(20_000_000), qr/^250/, 'there is room for 20 MB');
signal_relays('STOP');
my $said;
while (($said = mail(60_000)) =~ /^250/ && keys %kept < 300) { }
like(announced(20_000_000), qr/^452 4\.3\.1 /, 'now there is none');
like(announced(100_000), qr/^250/, 'for smaller ones there is');
while (($said = mail(60_000)) =~ /^250/ && keys %kept < 3000) { }
like($said, qr/^452 4\.3\.1 /, 'and then for none: ' . keys(%kept) . ' messages were taken');
my $status = queue_status();
ok($status->{refusing} && $status->{refusing_why} =~ /MiB reserved/, "status says so: $status->{refusing_why}");
cmp_ok($status->{disk_free}, '<', $status->{disk_reserve}, 'and how much room there is');
cmp_ok($status->{disk_free}, '>', 1 << 20, 'which is some');
like($s->ctl('status'), qr/^REFUSING MAIL.*\n(?:.*\n)*room +\d+ MiB on disk/m, 'so does what people read');
is(times_logged('refusing'), 1, 'the log says it once');
signal_relays('CONT');
ok(drained(), 'all that was accepted is delivered, once') or diag $s->ctl('queue', 'audit');
ok(accepts_again(), 'and mail is taken again') or diag $s->ctl('status');
is(times_logged('accepting'), 1, 'which is logged once, too');

# --- somebody else fills all of it, while outcomes come in ---

signal_relays('STOP');
mail($_ % 3 ? 5_000 : 100_000) for 1 .. 60;
ballast(1 << 40);
ok(Sekisho::wait_for(10, sub { mail(2_000) =~ /^452 4\.3\.1 / }), 'a full disk refuses') or diag $s->log;
signal_relays('CONT');
ok(Sekisho::wait_for(30, \&all_delivered), 'the rest is delivered meanwhile');
unlink "$spool/ballast";
ok(drained(), 'outcomes are kept as soon as there is room') or diag $s->ctl('queue', 'audit'), $s->log;
ok(accepts_again(), 'and mail is taken again');

# --- no files are left to be made ---

my @made;
while (open my $f, '>', "$spool/file-" . @made) { push @made, "$spool/file-" . @made; }
ok(Sekisho::wait_for(10, sub { mail(100) =~ /^452 4\.3\.1 / }), 'where no file can be made mail is refused');
like(queue_status()->{refusing_why}, qr/files can be made/, 'for that reason');
unlink @made;
ok(accepts_again(), 'until there can');

is(($s->pids('sekisho-queue'))[0], $queue, 'by the process that was there at first');
is($s->json('queue', 'audit')->{accepted}, $s->json('quota', 'show', $me)->{used}, 'each recipient is charged, once');
undef $client;
$s->stop;
system "umount", $spool;
done_testing;

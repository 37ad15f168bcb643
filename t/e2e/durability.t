#!/usr/bin/perl
# Setup: a service whose every process has the recording layer of t/durability preloaded; four clients send small and large messages at once.
# Expectation: at every recorded 250, a disk that kept only what was synced still holds every message promised so far, and the audit agrees. The same holds the
# test itself to account: the product built without the body's sync, and with commits that do not sync, must fail it.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use Test::More;

plan skip_all => 'the recording layer and the address sanitizer both want to be loaded first' if $Sekisho::BUILD =~ /san/;
my $build = $Sekisho::BUILD;

# Records a session against the given build; then what the replay says.
sub replay {
	my ($programs, $points) = @_;
	local $Sekisho::BUILD = $programs;
	my $log = File::Temp->new(TEMPLATE => 'sekisho-record-XXXXXX', TMPDIR => 1);
	truncate $log, 2 << 30;
	chmod 0666, "$log";
	my $s = Sekisho->new(conf => "${Sekisho::UNLIMITED}limits: { messages: 1000 }\n", env => { LD_PRELOAD => "$build/record.so", SEKISHO_RECORD => "$log" });
	my $me = 'alice@example.test';
	$s->account($me);
	my @clients;
	for my $n (1 .. 4) {
		my $pid = fork // die $!;
		if (!$pid) {
			my $c = $s->login($me) or POSIX::_exit(1);
			my $bad = 0;
			$bad += $c->send_mail($me, 'carol@example.org', "message $n.$_\r\n" . ($_ % 5 ? '' : "large body\r\n" x 8000)) !~ /^250/ for 1 .. 20;
			POSIX::_exit($bad ? 1 : 0);
		}
		push @clients, $pid;
	}
	my $bad = 0;
	for (@clients) { waitpid $_, 0; $bad++ if $? }
	is($bad, 0, 'every message got its 250') or diag $s->log;
	$s->stop;
	return ($s, scalar `$^X $FindBin::Bin/../durability/replay.pl $log $build/recover $s->{dir}/spool $s->{dir}/replay $points 2>&1`);
}

my ($s, $said) = replay($build, 0);
like($said, qr/^ok 1/m, 'every promise survives the loss of all unsynced writes') or diag $said;
like($said, qr/^ok 2/m, 'and there were promises') or diag $said;

# The mutants: each is one change to a copy of one source, relinked into a queue manager of its own beside links to the other programs.
my @mutants = (
	['the body is not synced', 'queue/segment.c', qr/\bfdatasync\(/, '(0 * '],
	['the commit is not synced', 'queue/lane.c', qr/\bMDB_NOTLS\b/, '(MDB_NOTLS | MDB_NOSYNC)'],
);
for (@mutants) {
	my ($what, $source, $from, $to) = @$_;
	my $dir = "$s->{dir}/mutant";
	system('rm', '-rf', $dir);
	mkdir $dir;
	my $text = do { local $/; open my $f, '<', "$Sekisho::TOP/$source" or die "$source: $!"; <$f> };
	my $changed = $text =~ s/$from/$to/g;
	ok($changed, "$what: the mutation applies") or next;
	open my $f, '>', "$dir/mutant.c" or die $!;
	print $f $text;
	close $f;
	my $made = system("cd $Sekisho::TOP && gcc -std=gnu11 -D_GNU_SOURCE -DSEKISHO_TEST -I. -O1 -c -o $dir/mutant.o $dir/mutant.c"
		. " && gcc -pie -o $dir/sekisho-queue $build/obj/queue/main.o $dir/mutant.o -Wl,--start-group $build/lib*.a -Wl,--end-group"
		. " -levent_core -levent_pthreads -lssl -lcrypto -llmdb -lxxhash -lyaml -lseccomp -lidn2 -lunistring -lpthread");
	is($made, 0, "$what: builds") or next;
	link($_, "$dir/" . (split '/')[-1]) || system('cp', $_, $dir) for grep { !/sekisho-queue$/ } glob "$build/sekisho*";
	chmod 0755, $dir;
	(undef, my $verdict) = replay($dir, 20);
	like($verdict, qr/^not ok 1/m, "$what: the test notices") or diag $verdict;
}
done_testing;

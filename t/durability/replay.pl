#!/usr/bin/perl
# Replays what t/durability/record.c saw: replay.pl LOG RECOVER SPOOL COPY POINTS
#
# The disk of this replay keeps only what was synced: a write counts once its file was synced afterwards, or at once on a descriptor
# opened with O_DSYNC; a created name counts once its file's directory was synced. At each of POINTS evenly chosen recorded promises (all of them when
# POINTS is 0) the surviving files are laid out in a fresh directory, RECOVER opens the store there, and every message promised so far must be found and the
# audit must agree. Prints TAP; exit status 1 when a promise was lost.
use strict;
use warnings;
use File::Path qw(make_path remove_tree);

my ($log, $recover, $spool, $dir, $points) = @ARGV;
my %directory = map { (stat "$spool/$_")[1] => $_ } qw(fresh retry fallback history bodies large);
my %inode_of = reverse %directory;
my %type = (1 => 'create', 2 => 'write', 3 => 'write_synced', 4 => 'sync', 5 => 'truncate', 6 => 'unlink', 7 => 'promise');
open my $f, '<:raw', $log or die "$log: $!";
sysread $f, my $head, 16;
my (undef, $overflow, $end) = unpack 'LLQ', $head;
die "the recording overflowed\n" if $overflow;

my @records;
my $promises = 0;
for (my $at = 16; $at < $end;) {
	sysseek $f, $at, 0;
	sysread $f, my $h, 24;
	my ($t, $len, $inode, $offset) = unpack 'LLQQ', $h;
	my $data = '';
	sysread $f, $data, $len if $len;
	push @records, [$type{$t}, $inode, $offset, $data];
	$promises++ if $type{$t} eq 'promise';
	$at += 24 + $len;
}
print "# $promises promises in ", scalar(@records), " records\n";
my $every = $points && $promises > $points ? $promises / $points : 1;

my (%name, %parent, %image, %pending, %linked, @promised);
my ($checked, $bad, $seen, $next) = (0, 0, 0, 1);

sub put {
	my ($inode, $offset, $data) = @_;
	$image{$inode} //= '';
	my $gap = $offset - length $image{$inode};
	$image{$inode} .= "\0" x $gap if $gap > 0;
	substr($image{$inode}, $offset, length $data) = $data;
}

sub apply {
	my ($inode) = @_;
	for (@{delete $pending{$inode} // []}) {
		my ($kind, $offset, $data) = @$_;
		if ($kind eq 'write') { put($inode, $offset, $data) }
		elsif (length($image{$inode} //= '') > $offset) { substr($image{$inode}, $offset) = '' }
		else { $image{$inode} .= "\0" x ($offset - length $image{$inode}) }
	}
}

sub check {
	my ($why) = @_;
	remove_tree($dir);
	make_path(map { "$dir/$_" } qw(fresh retry fallback history bodies large));
	for my $inode (keys %name) {
		next unless $linked{$inode};
		my $path = "$dir/$name{$inode}";
		open my $out, '>:raw', $path or die "$path: $!";
		print $out $image{$inode} // '';
		close $out;
	}
	my $said = `$recover $dir @promised 2>&1`;
	$checked++;
	if ($said !~ /^audit ok/m || $said =~ /^lost/m || ($said =~ tr/\n//) < @promised) {
		$bad++;
		my @lost = $said =~ /^lost (\S+)/mg;
		$said =~ s/^kept.*\n//mg;
		print "# after $why: ", scalar(@lost), ' of ', scalar(@promised), " promised messages are lost\n", map { "# $_\n" } (split /\n/, $said)[0 .. 2] if $bad <= 3;
	}
}

for (@records) {
	my ($kind, $inode, $offset, $data) = @$_;
	if ($kind eq 'create') {
		my $name = $directory{$offset} ? "$directory{$offset}/$data" : $data;
		my ($place) = $name =~ m{^(fresh|retry|fallback|history|bodies|large)/(?!lock)[^/]+$} or next;
		$name{$inode} = $name;
		$parent{$inode} = $inode_of{$place};
		delete $pending{$inode};
		$image{$inode} = '';
		$linked{$inode} = 0;
	}
	elsif ($kind eq 'write') { push @{$pending{$inode}}, ['write', $offset, $data] if $name{$inode} }
	elsif ($kind eq 'write_synced') { put($inode, $offset, $data) if $name{$inode} }
	elsif ($kind eq 'truncate') { push @{$pending{$inode}}, ['truncate', $offset] if $name{$inode} }
	elsif ($kind eq 'sync') {
		if ($name{$inode}) { apply($inode) }
		elsif ($directory{$inode}) { $linked{$_} = 1 for grep { $parent{$_} == $inode } keys %name }
	}
	elsif ($kind eq 'unlink') { delete @{$_}{$inode} for \%name, \%parent, \%image, \%pending, \%linked }
	elsif ($kind eq 'promise') {
		push @promised, $data;
		if (++$seen >= $next) {
			check("promise $seen");
			$next += $every;
		}
	}
}
check('the last record');
remove_tree($dir);
print $bad ? 'not ok' : 'ok', " 1 - at $checked points every promised message survives the loss of all unsynced writes ($bad failed)\n";
print $checked > 1 ? 'ok' : 'not ok', " 2 - there were promises to check\n1..2\n";
exit($bad || $checked < 2 ? 1 : 0);

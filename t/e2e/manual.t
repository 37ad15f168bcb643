#!/usr/bin/perl
# Setup: the manual, the sources, and the programs; nothing runs.
# Expectation: every page is clean mdoc and refers to pages that exist; every event that a program may log stands in its page, and no other; what
# --help names the page has, command by command; and every help code a subscriber may be told is explained. Options of the configuration:
# t/unit/manual.c.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use Test::More;

chdir $Sekisho::TOP or die $!;

sub text { my ($path) = @_; local $/; open my $f, '<', $path or die "$path: $!"; return scalar <$f> }

my @pages = glob 'man/*.[0-9]';
my %pages = map { m{([^/]+)\.(\d)$} ? ("$1 $2" => text($_)) : () } @pages;
my @programs = qw(sekishod sekisho-msa sekisho-auth sekisho-queue sekisho-relay sekisho-keys sekisho-admin sekishoctl);
is_deeply([sort keys %pages], [sort((map { "$_ 8" } @programs), 'sekisho 7', 'sekisho.yaml 5')], 'a page for each program, the configuration and the whole');

# Pages of others than ours may not be installed here.
SKIP: {
	skip 'mandoc is not installed', scalar @pages unless grep { -x "$_/mandoc" } split /:/, $ENV{PATH};
	for my $page (@pages) {
		my @said = grep { !/referenced manual not found|outdated mandoc\.db/ } `mandoc -Tlint $page 2>&1`;
		is("@said", '', "$page is clean");
	}
}
my %others = map { $_ => 1 } 'systemd-journald 8', 'dmesg 1', 'nohup 1';
for my $page (sort keys %pages) {
	my @lost = grep { !$pages{$_} && !$others{$_} } map { "$_->[0] $_->[1]" } map { /^\.Xr (\S+) (\d)/ ? [$1, $2] : () } split /\n/, $pages{$page};
	is("@lost", '', "$page refers to pages that exist");
}

# Events. What stands behind a program in a folder of another is logged by who calls it; core's by all.
my %sources = (
	'sekisho 7'       => ['core/*.c'],
	'sekishod 8'      => ['sekishod/*.c'],
	'sekisho-msa 8'   => ['msa/*.c', 'keys/client.c', 'queue/client.c', 'auth/client.c'],
	'sekisho-auth 8'  => ['auth/*.c'],
	'sekisho-queue 8' => ['queue/*.c'],
	'sekisho-relay 8' => ['relay/*.c', 'queue/worker.c'],
	'sekisho-keys 8'  => ['keys/main.c', 'keys/text.c'],
	'sekisho-admin 8' => ['admin/*.c', 'queue/control.c'],
);
my %elsewhere = map { $_ => 1 } 'auth/client.c', 'queue/client.c', 'queue/worker.c', 'queue/control.c';
for my $page (sort keys %sources) {
	my @patterns = @{$sources{$page}};
	my @files = grep { my $f = $_; !$elsewhere{$f} || grep { $_ eq $f } @patterns } map { glob } @patterns;
	@files = grep { !m{admin/(sekishoctl|ctl_)} } @files;
	my $code = join '', map { text($_) } @files;
	my %told = map { /^\.It Sy ([a-z_-]+)/ ? ($1 => 1) : () } split /\n/, $pages{$page};
	my %logged;
	$logged{$1} = 1 while $code =~ /log_(?:error|warn|info|debug|event)\((?:[^;"]|"-")*?"([a-z][a-z_-]*)"\s*,/g;
	ok(%told > 2 || $page eq 'sekisho-keys 8', "$page tells of events");
	is(join(' ', sort grep { !$told{$_} } keys %logged), '', "$page tells of every event that is logged");
	is(join(' ', sort grep { !$logged{$_} && $code !~ /"(?:- )?\Q$_\E[" ]/ } keys %told), '', "and of none that is not");
}

# --help
for my $program (@programs) {
	my $help = `$Sekisho::BUILD/$program --help`;
	is($?, 0, "$program --help");
	$help =~ s/^To start the service: .*//m;
	my $page = $pages{"$program 8"};
	my %lost = map { $_ => 1 } $help =~ /(?<![\w-])(--?[a-zA-Z][a-z-]*)/g;
	for my $option (keys %lost) {
		my $name = quotemeta substr $option, 1;
		delete $lost{$option} if $page =~ /^\.[A-Z].* Fl (?:.* )?$name\b/m;
	}
	is(join(' ', sort keys %lost), '', "$program(8) has every option that it names");
}

# Command by command: the same options.
{
	my $help = `$Sekisho::BUILD/sekishoctl --help` =~ s/^  --json .*//msr;
	my ($helped, $told) = ({}, {});
	for (split /\n/, $help) {
		my ($command, $synopsis) = /^  (account identity [a-z]+|(?:account|quota|queue|sender|session|site) [a-z]+|[a-z]+)(?= |$)(.*?)(?:  |$)/ or next;
		$helped->{$command} = join ' ', sort $synopsis =~ /(--[a-z-]+)/g;
	}
	my %seen;
	for (split /\n/, $pages{'sekishoctl 8'}) {
		my ($command, $arguments) = /^\.It Ic (account identity [a-z]+|(?:account|quota|queue|sender|session|site) [a-z]+|[a-z]+)(.*)/ or next;
		$seen{$command}{"-$_"} = 1 for $arguments =~ /Fl (-[a-z-]+)/g;
		$told->{$command} = join ' ', sort keys %{$seen{$command} // {}};
	}
	is_deeply($told, $helped, 'sekishoctl(8) and --help: the same commands with the same options');
}

# What subscribers are told.
my %codes = map { $_ => 1 } text('msa/replies.c') =~ /code ([A-Z]\d)"/g;
cmp_ok(scalar keys %codes, '>', 2, 'replies have help codes');
is(join(' ', sort grep { $pages{'sekisho 7'} !~ /code $_\b/ } keys %codes), '', 'sekisho(7) explains each');
done_testing;

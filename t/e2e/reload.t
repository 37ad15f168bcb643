#!/usr/bin/perl
# Setup: a running service whose configuration is changed, well and badly, while sessions are open, mail is on its way, and processes die.
# Expectation: a good file comes into force as a whole, everywhere, and no session notices; a bad one changes nothing and is told with every mistake; what
# is in force is what the next process starts with.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use Test::More;

my $me = 'alice@example.test';
sub slurp { local $/; open my $f, '<', $_[0] or return ''; return <$f> // '' }
sub descriptors { my @list = glob "/proc/$_[0]/fd/*"; return scalar @list }

# The line with the next result of a reload.
sub reload {
	my ($s) = @_;
	my $at = length $s->log;
	kill 'HUP', $s->{daemon};
	my $line;
	Sekisho::wait_for(30, sub { ($line) = substr($s->log, $at) =~ /^\S+ sekishod\[\d+\] \S+ - reload (.*)$/m }) or die "no reload:\n" . $s->log;
	return $line;
}

sub rewrite {
	my ($s, $extra, $edit) = @_;
	$s->{extra} = $extra;
	$s->write_conf;
	return unless $edit;
	my $text = slurp("$s->{dir}/sekisho.yaml");
	$edit->() for $text;
	open my $f, '>', "$s->{dir}/sekisho.yaml" or die $!;
	print $f $text;
	close $f;
}

my $s = Sekisho->new(conf => "msa: { processes: 2 }\n");
$s->account($me);
is($s->json('status')->{configuration}{generation}, 1, 'the first generation');
my $c = $s->login($me);
like(reload($s), qr/^done generation=2 /, 'an unchanged file is a new generation');
is($s->json('status')->{configuration}{generation}, 2, 'status shows it');
like($c->send_mail($me, 'x@example.org', 'over'), qr/^250/, 'the session goes on');
$c = $s->login($me);
like($c->send_mail($me, 'x@example.org', 'new'), qr/^250/, 'and new ones come');
done_testing;

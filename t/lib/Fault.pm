# A service with t/durability/fault.c preloaded, which kills its processes or fails its disk at one named step.
package Fault;
use strict;
use warnings;
use File::Temp;
use Sekisho;
use Time::HiRes qw(time);

my %action = (before => 1, after => 2, fail => 3);

# Sekisho->new's options.
sub new {
	my ($class, %opt) = @_;
	my $control = File::Temp->new(TEMPLATE => 'sekisho-fault-XXXXXX', TMPDIR => 1);
	binmode $control;
	chmod 0666, "$control";
	syswrite $control, "\0" x 64;
	my $service = Sekisho->new(%opt, clock => 1, env => { LD_PRELOAD => "$Sekisho::BUILD/fault.so", SEKISHO_FAULT => "$control" });
	return bless { control => $control, service => $service }, $class;
}

sub service { my ($self) = @_; return $self->{service} }
sub state_of_fault { my ($self) = @_; sysseek $self->{control}, 0, 0; sysread $self->{control}, my $c, 64; return unpack 'LLlLLLLL', $c }
sub fired { my ($self) = @_; return ($self->state_of_fault)[6] }
sub steps { my ($self) = @_; return ($self->state_of_fault)[7] }
sub disarm { my ($self) = @_; sysseek $self->{control}, 0, 0; syswrite $self->{control}, pack 'L', 0 }

# The action (before, after: killed; fail: with error) at the point, after skip passes, times times.
sub arm {
	my ($self, $point, $action, %opt) = @_;
	my $control = $self->{control};
	$self->disarm;
	sysseek $control, 4, 0;
	syswrite $control, pack 'LlLLLL', $action{$action}, $opt{error} // 0, $opt{skip} // 0, $opt{times} // 0, 0, 0;
	sysseek $control, 32, 0;
	syswrite $control, pack 'a32', $point;
	sysseek $control, 0, 0;
	syswrite $control, pack 'L', 1;
}

# Nothing was written for longer than the queue's tick: nothing is under way.
sub at_rest {
	my ($self) = @_;
	my ($steps, $since) = ($self->steps, time);
	return Sekisho::wait_for(30, sub {
		my $now = $self->steps;
		($steps, $since) = ($now, time) if $now != $steps;
		return time - $since > 1.3;
	});
}

# The share of the cases that is taken, from the given one on.
sub share {
	my ($first, @cases) = @_;
	my $every = $ENV{SEKISHO_FAULTS} // 3;
	return map { $cases[$_] } grep { $_ % $every == $first % $every } 0 .. $#cases;
}

1;

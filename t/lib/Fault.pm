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
	syswrite $control, "\0" x 68;
	my $service = Sekisho->new(%opt, clock => 1, env => { LD_PRELOAD => "$Sekisho::BUILD/fault.so", SEKISHO_FAULT => "$control" });
	return bless { control => $control, service => $service }, $class;
}

sub service { my ($self) = @_; return $self->{service} }
sub state_of_fault { my ($self) = @_; sysseek $self->{control}, 0, 0; sysread $self->{control}, my $c, 68; return unpack 'LLlLLLLLx32L', $c }
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

# Nothing is under way, and the queue's tick finds nothing to do either. Of the steps as many may never end as processes were killed in one from outside,
# which shows when long nothing changes.
sub at_rest {
	my ($self) = @_;
	my ($quiet, $long) = (0.25, 1.3); # s: a writer rests for at most 0.2
	my ($since, $open, $ticked) = (time, $self->{open} // 0, -1);
	my $steps = $self->steps;
	return Sekisho::wait_for(30, sub {
		my ($now, $past) = ($self->state_of_fault)[7, 8];
		($steps, $since) = ($now, time) if $now != $steps;
		my $still = time - $since;
		$open = $self->{open} = $now - $past if $still > $long;
		return 0 if $still < $quiet || $now - $past != $open;
		return 1 if $ticked == $now;
		($ticked, $since) = ($now, time);
		$self->service->advance(1000);
		return 0;
	});
}

# The share of the cases that is taken, from the given one on.
sub share {
	my ($first, @cases) = @_;
	my $every = $ENV{SEKISHO_FAULTS} // 3;
	return map { $cases[$_] } grep { $_ % $every == $first % $every } 0 .. $#cases;
}

1;

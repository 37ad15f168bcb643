#!/usr/bin/perl
# Setup: a site that takes mail, among it the notifications to our senders, and one that refuses for now or for good; the shared test clock moves from
# attempt to attempt.
# Expectation: who sent mail that waits is told once at 4 h and once at 24 h, and that it failed after 4 days; mail refused for good is told of at once. A
# notification is a multipart/report as RFC 3464 has it, names exactly the recipients concerned, returns the header section and nothing of the body, and
# goes to the envelope sender from the null sender. Mail from the null sender is tried for a day and nobody is told. The books are conserved after each.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use MIME::Parser;
use Test::More;
use Time::Local qw(timegm);

my ($minute, $hour) = (60_000, 3_600_000);
my $good = Sekisho->new(no_start => 1); # only its sink is used
my $s = Sekisho->new(clock => 1, no_sink => 1, no_start => 1);
$s->{extra} = qq(routes:\n  "good.example": "127.0.0.1:$good->{ports}{sink}"\n  "example.test": "127.0.0.1:$good->{ports}{sink}"\n)
	. qq(  "*": "127.0.0.1:$s->{ports}{sink}"\n);
$s->write_conf;
$s->start_sink('-r', 'rcpt');
$s->start;
my ($me, $far) = ('alice@example.test', 'bob@refusing.example');
$s->account($me, $far);

sub ms { # of an RFC 3339 time
	my ($y, $mo, $d, $h, $mi, $se, $zone, $zh, $zm) = ($_[0] // '') =~ /^(\d+)-(\d+)-(\d+)T(\d+):(\d+):(\d+)(?:\.\d+)?(?:Z|([+-])(\d+):(\d+))$/ or return 0;
	my $away = $zone ? ($zh * 60 + $zm) * 60 * ($zone eq '-' ? -1 : 1) : 0;
	return 1000 * (timegm($se, $mi, $h, $d, $mo - 1, $y) - $away);
}

sub send_one {
	my ($account, $from, $body, @to) = @_;
	my $c = $s->login($account) or return;
	for ("MAIL FROM:<$from>", map { "RCPT TO:<$_>" } @to) {
		my $said = $c->cmd($_);
		diag "$_: $said" if $said !~ /^250/;
	}
	$c->cmd('DATA');
	$c->raw("From: <$account>\r\nSubject: my subject $body\r\n\r\n$body-octets\r\n.\r\n");
	my $said = $c->reply;
	my ($id) = $said =~ /^250 2\.0\.0 Queued as (\w+)/;
	ok($id, "accepted for @to") or diag $said;
	return $id;
}

sub state_of { my ($m) = @_; return join ' ', map { $_->{state} } @{ $m->{rcpt} // [] } }

sub conserved {
	my ($what, %want) = @_;
	my $a;
	ok(Sekisho::wait_for(20, sub {
		$a = $s->json('queue', 'audit');
		return $a && $a->{conserved} && !grep { $a->{$_} != $want{$_} } keys %want;
	}), "conserved: $what") or diag $s->ctl('queue', 'audit'), explain \%want;
}

# The notifications about a message that have arrived, in order.
sub notices {
	my ($id) = @_;
	my @found;
	for my $dump ($good->delivered) {
		next if $dump !~ /^X-Mail-Args: <>/m || $dump !~ /\b\Q$id\E\b/;
		my $parser = MIME::Parser->new;
		$parser->output_to_core(1);
		my $entity = $parser->parse_data($dump);
		push @found, { dump => $dump, entity => $entity, fields => fields($entity) };
	}
	@found = sort { $a->{fields}[1]{action} cmp $b->{fields}[1]{action} } @found; # delayed before failed
	return @found;
}

# message/delivery-status: the fields of the message, then of each recipient.
sub fields {
	my ($entity) = @_;
	my $text = $entity->parts(1) ? $entity->parts(1)->bodyhandle->as_string : '';
	$text =~ s/\r//g;
	return [map { my %f; $f{lc $1} = $2 while /^([\w-]+): (.*)$/mg; \%f } split /\n\n/, $text];
}

sub is_notice {
	my ($n, $what, $action, $status, $to, @recipients) = @_;
	my $e = $n->{entity};
	is($e->mime_type, 'multipart/report', "$what: a report");
	like($e->head->get('Content-Type'), qr/report-type=delivery-status/, "$what: of delivery status");
	is_deeply([map { $_->mime_type } $e->parts], ['text/plain', 'message/delivery-status', 'text/rfc822-headers'], "$what: its three parts");
	like($n->{dump}, qr/^X-Rcpt-Args: <\Q$to\E>/m, "$what: goes to the envelope sender");
	like($e->head->get('From'), qr/MAILER-DAEMON\@mail\.example\.test/, "$what: from us");
	my @f = @{ $n->{fields} };
	is($f[0]{'reporting-mta'}, 'dns; mail.example.test', "$what: who reports");
	shift @f;
	is_deeply([sort map { $_->{'final-recipient'} } @f], [sort map { "rfc822; $_" } @recipients], "$what: names its recipients");
	is_deeply([map { $_->{action} } @f], [($action) x @recipients], "$what: $action");
	like($_->{status}, $status, "$what: status") for @f;
	my $headers = $e->parts(2)->bodyhandle->as_string;
	like($headers, qr/^Subject: my subject/m, "$what: the header section comes back");
	like($headers, qr/^Received: /m, "$what: with our own field");
	unlike($n->{dump}, qr/-octets/, "$what: nothing of the body");
	return $f[0];
}

# --- four days ---

my $id = send_one($me, $me, 'waiting', 'carol@slow.example');
my $accepted = ms($s->show($id)->{accepted}); # we may hear of it seconds later
my ($n, $m, $last, %count_at) = (0);
my %audit = (accepted => 1, generated => 0, delivered => 0, bounced => 0, expired => 0, queued => 1);
while ($n < 120) {
	$n++;
	ok(0, "attempt $n"), last unless Sekisho::wait_for(20, sub { $m = $s->show($id); ($m->{attempts} // 0) >= $n && ($m->{finished} || $m->{lane} ne 'fresh' && ms($m->{due}) > $s->now) });
	my $before = defined $last ? 0 + $last : 0;
	my $age = $last = $s->now - $accepted;
	my $told = $age >= 24 * $hour ? 2 : $age >= 4 * $hour ? 1 : 0;
	$told++ if $m->{finished};
	if (!exists $count_at{$told}) {
		$count_at{$told} = $before;
		Sekisho::wait_for(20, sub { notices($id) >= $told });
		conserved("$told notifications", accepted => 1, generated => $told, delivered => $told, queued => $m->{finished} ? 0 : 1, expired => $m->{finished} ? 1 : 0);
	}
	last if $m->{finished};
	$s->advance(ms($m->{due}) + 2000 - $s->now);
}
is(state_of($m), 'expired', "expired after $n attempts");
like($m->{rcpt}[0]{reply}, qr/^message expired after 4 days; last: 450 /, 'and says so, with the last reply');
ok($s->now - $accepted >= 96 * $hour && $s->now - $accepted < 97 * $hour, 'after 4 days');
my @n = notices($id);
is(scalar @n, 3, 'three notifications, each once');
for (0, 1) {
	my $f = is_notice($n[$_], 'delay', 'delayed', qr/^4\.\d+\.\d+$/, $me, 'carol@slow.example');
	like($f->{'diagnostic-code'}, qr/^smtp; 450 /, 'delay: the last reply');
	ok($f->{'will-retry-until'}, 'delay: until when it is tried');
}
my $f = is_notice($n[2], 'failure', 'failed', qr/^4\.4\.7$/, $me, 'carol@slow.example');
like($f->{'diagnostic-code'}, qr/^smtp; 450 /, 'failure: the last reply');
ok($count_at{1} < 4 * $hour && $count_at{2} < 24 * $hour, 'at the first attempt past 4 h and 24 h') or diag explain \%count_at;
my $told = $s->json('queue', 'show', ($n[2]{entity}->head->get('Message-ID') =~ /<(\w+)@/)[0]);
is($told->{account}, '', 'it belongs to no account');
is($told->{from}, '', 'and comes from the null sender');
is(($s->json('quota', 'show', $me) // {})->{used}, 0, 'and is not charged');

# --- the null sender ---

$id = send_one($me, '', 'null', 'carol@slow.example');
$accepted = ms($s->show($id)->{accepted});
for ($n = 1; $n < 60; $n++) {
	last unless Sekisho::wait_for(20, sub { $m = $s->show($id); ($m->{attempts} // 0) >= $n && ($m->{finished} || $m->{lane} ne 'fresh' && ms($m->{due}) > $s->now) });
	last if $m->{finished};
	$s->advance(ms($m->{due}) + 2000 - $s->now);
}
is(state_of($m), 'expired', 'null sender: expired');
like($m->{rcpt}[0]{reply}, qr/^message expired after 1 day; last: 450 /, 'null sender: after a day');
ok($s->now - $accepted >= 24 * $hour && $s->now - $accepted < 25 * $hour, 'null sender: not sooner or later');
conserved('nobody was told', accepted => 2, generated => 3, delivered => 3, expired => 2, queued => 0);

# --- refused for good ---

$s->stop_sink;
$s->start_sink('-f', 'rcpt');
$id = send_one($me, $me, 'bad', 'carol@bad.example');
ok(Sekisho::wait_for(20, sub { @n = notices($id) }), 'refused for good: told at once');
$f = is_notice($n[0], 'bounce', 'failed', qr/^5\.\d+\.\d+$/, $me, 'carol@bad.example');
like($f->{'diagnostic-code'}, qr/^smtp; 5\d\d /, 'bounce: the reply');
conserved('a bounce', accepted => 3, generated => 4, delivered => 4, bounced => 1, queued => 0);

# --- some refused, some not ---

$id = send_one($me, $me, 'some', 'good@good.example', 'one@bad.example', 'two@bad.example');
ok(Sekisho::wait_for(20, sub { @n = notices($id) }), 'some refused: told');
conserved('some', accepted => 6, generated => 5, delivered => 6, bounced => 3, queued => 0);
is(scalar(@n = notices($id)), 1, 'some refused: one notification');
is_notice($n[0], 'some', 'failed', qr/^5\./, $me, 'one@bad.example', 'two@bad.example');

# --- no bounce of a bounce ---

$id = send_one($far, $far, 'double', 'carol@bad.example');
conserved('the notification bounced and nobody was told', accepted => 7, generated => 6, delivered => 6, bounced => 5, queued => 0);

# --- a large body: only its header section is read ---

$id = send_one($me, $me, 'large ' . 'x' x 900 . "\r\n" . 'large-octets' x 10, 'carol@bad.example');
{
	my $c = $s->login($me);
	my $said = $c->send_mail($me, 'carol@bad.example', "large-octets\r\n" x 8000);
	($id) = $said =~ /^250 2\.0\.0 Queued as (\w+)/;
}
ok(Sekisho::wait_for(20, sub { @n = notices($id) }), 'a large body: told');
unlike($n[0]{dump}, qr/-octets/, 'nothing of the body');
like($n[0]{entity}->parts(2)->bodyhandle->as_string, qr/^Subject: test/m, 'but its header section');
conserved('at the end', accepted => 9, generated => 8, queued => 0);
done_testing;

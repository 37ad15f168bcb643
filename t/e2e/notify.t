#!/usr/bin/perl
# Setup: a next hop that offers DSN or not, as the test says, one that refuses for good or for now, a Postfix that sends its notifications back to a sink of
# ours and an OpenSMTPD (as root), and that sink, which takes what goes to the senders.
# Expectation: what the client asked of notifications (RFC 3461) goes to a hop that knows them, word for word; a hop that does not is asked nothing, and
# who wanted to hear of success hears of that from us, once. Our own notifications go to whom NOTIFY says, name what the client named, and return what RET
# says, up to 64 KiB. The null sender is told nothing. The books are conserved.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use Peers;
use NextHop;
use MIME::Parser;
use Test::More;

my ($hop_port, $postfix_port, $opensmtpd_port) = map { Sekisho::free_port() } 1 .. 3;
my $hop = NextHop->new(port => $hop_port);
my $s = Sekisho->new(clock => 1, no_start => 1);
my $postfix = $> == 0 ? Peers->postfix('127.0.0.1', $postfix_port, 'postfix.example', "relayhost = [127.0.0.1]:$s->{ports}{sink}\n") : undef;
my $opensmtpd = $> == 0 ? Peers->opensmtpd('127.0.0.1', $opensmtpd_port, 'opensmtpd.example') : undef;
$s->{extra} = "quota: { $Sekisho::UNPACED }\n" . "relay: { deliveries: 1 }\n" . <<"CONF"; # each message meets the offers of its time
routes:
  example.test: "127.0.0.1:$s->{ports}{sink}"
  postfix.example: "127.0.0.1:$postfix_port"
  opensmtpd.example: "127.0.0.1:$opensmtpd_port"
  "*": "127.0.0.1:$hop_port"
CONF
$s->write_conf;
$s->start;
my $me = 'alice@example.test';
$s->account($me);
my $c = $s->login($me) or BAIL_OUT $s->log;

my %seen;
my %want = (accepted => 0, generated => 0);

# send_one("MAIL parameters", body, address => "RCPT parameters", …): the id.
sub send_one {
	my ($parameters, $body, @to) = @_;
	my $from = $parameters =~ s/^<>// ? '' : $me;
	my @said = $c->cmd("MAIL FROM:<$from>$parameters");
	while (my ($to, $more) = splice @to, 0, 2) { push @said, $c->cmd("RCPT TO:<$to>$more"); $want{accepted}++ }
	my @bad = grep { !/^250/ } @said;
	is("@bad", '', 'the envelope is taken');
	$c->cmd('DATA');
	$c->raw("From: <$me>\r\nSubject: about this\r\n\r\n$body\r\n.\r\n");
	my $said = $c->reply;
	my ($id) = $said =~ /^250 2\.0\.0 Queued as (\w+)/ or diag $said;
	return $id // BAIL_OUT $s->log;
}

sub finished {
	my ($id) = @_;
	my $m;
	return Sekisho::wait_for(30, sub { $m = $s->json('queue', 'show', $id); ref $m && $m->{finished} }) ? $m : diag explain $m;
}

# The recipients' states, once it has ended.
sub ends { my $m = finished($_[0]); return ref $m ? join ' ', map { $_->{state} } @{ $m->{rcpt} } : '' }

# The notifications of ours about a message, after the books say that all there are have arrived.
sub notices {
	my ($id, $count) = @_;
	$want{generated} += $count;
	my $a;
	ok(Sekisho::wait_for(30, sub { $a = $s->json('queue', 'audit'); ref $a && $a->{conserved} && !grep { $a->{$_} != $want{$_} } keys %want }), "$count more generated, conserved")
		or diag explain($a), explain(\%want);
	my @found;
	Sekisho::wait_for(30, sub { @found = grep { /^From: \S.*MAILER-DAEMON\@mail\.example\.test/m && /\b\Q$id\E\b/ && !$seen{$_} } $s->delivered; @found >= $count });
	$seen{$_} = 1 for @found;
	is(scalar @found, $count, 'and arrived');
	return map { parse($_) } @found;
}

sub parse {
	my ($dump) = @_;
	my $parser = MIME::Parser->new;
	$parser->output_to_core(1);
	$parser->extract_nested_messages(0);
	my $e = $parser->parse_data($dump =~ s/\r//gr);
	my @fields = map { my %f; $f{lc $1} = $2 while /^([\w-]+): (.*)$/mg; \%f } split /\n\n/, $e->parts(1)->bodyhandle->as_string;
	return { fields => \@fields, type => $e->parts(2)->mime_type, returned => $e->parts(2)->bodyhandle->as_string, subject => $e->head->get('Subject'), dump => $dump };
}

# --- passed on ---

$hop->offers(qw(PIPELINING DSN));
my $id = send_one(' RET=FULL ENVID=QQ+2B314', 'pass on', 'one@hop.example' => ' NOTIFY=SUCCESS,DELAY ORCPT=rfc822;One+2Bx@list.example',
	'two@hop.example' => ' NOTIFY=NEVER', 'three@hop.example' => '', 'four@hop.example' => ' ORCPT=rfc822;four@list.example');
is(ends($id), 'delivered delivered delivered delivered', 'a hop with DSN takes them');
is_deeply([$hop->heard(qr/^(MAIL|RCPT)/)], ["MAIL FROM:<$me> RET=FULL ENVID=QQ+2B314",
	'RCPT TO:<one@hop.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;One+2Bx@list.example', 'RCPT TO:<two@hop.example> NOTIFY=NEVER',
	'RCPT TO:<three@hop.example>', 'RCPT TO:<four@hop.example> ORCPT=rfc822;four@list.example'], 'with what was asked, and nothing else');
notices($id, 0);

# --- success, where the next hop will not tell ---

$hop->offers('PIPELINING');
$id = send_one(' RET=FULL ENVID=QQ+2B314', 'secret-of-success', 'five@hop.example' => ' NOTIFY=SUCCESS ORCPT=rfc822;Five@list.example',
	'six@hop.example' => ' NOTIFY=SUCCESS,FAILURE', 'seven@hop.example' => ' NOTIFY=FAILURE', 'eight@hop.example' => '', 'nine@hop.example' => ' NOTIFY=NEVER');
is(ends($id), join(' ', ('delivered') x 5), 'a hop without DSN takes them');
is_deeply([grep { !/hop\.example>$/ } $hop->heard(qr/^RCPT TO:<(five|six|seven|eight|nine)@/)], [], 'and is asked nothing of it');
is(scalar $hop->heard(qr/^MAIL .* RET/), 1, 'nor was it by MAIL');
my ($n) = notices($id, 1);
is($n->{subject}, "Mail handed on, without confirmation\n", 'the sender is told');
is($n->{fields}[0]{'original-envelope-id'}, 'QQ+314', 'under its envelope id');
is_deeply([map { "$_->{action} $_->{status} $_->{'final-recipient'} " . ($_->{'original-recipient'} // '-') } @{ $n->{fields} }[1 .. $#{ $n->{fields} }]],
	['relayed 2.0.0 rfc822; five@hop.example rfc822; Five@list.example', 'relayed 2.0.0 rfc822; six@hop.example -'], 'of those that it wanted to hear of');
is($n->{type}, 'text/rfc822-headers', 'with the header section, whatever RET says');
unlike($n->{dump}, qr/secret-of-success/, 'and no body');

# --- failure ---

$hop->offers('DSN', { RCPT => '550 5.1.1 nobody here' });
$id = send_one(' ENVID=E1', 'secret-of-failure', 'a@hop.example' => ' NOTIFY=FAILURE,DELAY ORCPT=rfc822;A@list.example', 'b@hop.example' => ' NOTIFY=NEVER',
	'c@hop.example' => ' NOTIFY=SUCCESS,DELAY', 'd@hop.example' => '');
is(ends($id), 'bounced bounced bounced bounced', 'refused for good');
($n) = notices($id, 1);
is($n->{fields}[0]{'original-envelope-id'}, 'E1', 'the envelope id comes back');
is_deeply([map { "$_->{action} $_->{status} $_->{'final-recipient'} " . ($_->{'original-recipient'} // '-') } @{ $n->{fields} }[1 .. $#{ $n->{fields} }]],
	['failed 5.1.1 rfc822; a@hop.example rfc822; A@list.example', 'failed 5.1.1 rfc822; d@hop.example -'], 'of whom the sender wants to hear');
unlike($n->{dump}, qr/secret-of-failure/, 'no body unless asked');
notices(send_one('', 'x', 'b@hop.example' => ' NOTIFY=NEVER', 'c@hop.example' => ' NOTIFY=SUCCESS'), 0);
notices(send_one('<>', 'x', 'b@hop.example' => ' NOTIFY=SUCCESS,FAILURE,DELAY'), 0);

# --- what comes back ---

$id = send_one(' RET=FULL', "whole.1\r\n..whole.2", 'a@hop.example' => '');
($n) = notices($id, 1);
is($n->{type}, 'message/rfc822', 'RET=FULL: the message');
like($n->{returned}, qr/^Received: .*\nSubject: about this\n\nwhole\.1\n\.whole\.2\n$/s, 'all of it, as it was') or diag $n->{returned};
$id = send_one(' RET=HDRS', 'secret-body', 'a@hop.example' => '');
($n) = notices($id, 1);
is($n->{type}, 'text/rfc822-headers', 'RET=HDRS: the header section');
unlike($n->{dump}, qr/secret-body/, 'alone');
$id = send_one(' RET=FULL', "secret-body 7890123456789012345678901234567890123456789012345678901\r\n" x 1024, 'a@hop.example' => '');
($n) = notices($id, 1);
is($n->{type}, 'text/rfc822-headers', 'RET=FULL of more than 64 KiB: the header section');
unlike($n->{dump}, qr/secret-body/, 'alone');

# --- delay ---

$hop->offers('DSN', { RCPT => '450 4.2.1 later' });
$id = send_one('', 'wait', 'a@hop.example' => ' NOTIFY=FAILURE', 'b@hop.example' => ' NOTIFY=DELAY', 'c@hop.example' => '', 'd@hop.example' => ' NOTIFY=NEVER');
my $m;
ok(Sekisho::wait_for(20, sub { $m = $s->json('queue', 'show', $id); ref $m && ($m->{lane} // '') eq 'retry' }), 'it waits');
$s->advance(5 * 3_600_000);
($n) = notices($id, 1);
is_deeply([map { "$_->{action} $_->{'final-recipient'}" } @{ $n->{fields} }[1 .. $#{ $n->{fields} }]], ['delayed rfc822; b@hop.example', 'delayed rfc822; c@hop.example'],
	'a delay is told where it was asked for, or nothing was');
$hop->offers('DSN');
Sekisho::wait_for(20, sub { $m = $s->json('queue', 'show', $id); ref $m && ($m->{attempts} // 0) >= 2 });
$s->advance(3_600_000);
is(ends($id), 'delivered delivered delivered delivered', 'it arrives at last');
notices($id, 0);
$c = $s->login($me); # hours have passed

# An operator holds one of two domains: of its recipient nobody is told, as nothing is tried.
$s->ctl('queue', 'hold', '--recipient', 'held.example', '--reason', 'test');
$hop->offers('DSN', { RCPT => '450 4.2.1 later' });
$id = send_one('', 'held in part', 'a@hop.example' => '', 'b@held.example' => '');
ok(Sekisho::wait_for(20, sub { $m = $s->json('queue', 'show', $id); ref $m && ($m->{lane} // '') eq 'retry' }), 'one waits, one is held');
$s->advance(5 * 3_600_000);
($n) = notices($id, 1);
is_deeply([map { "$_->{action} $_->{'final-recipient'}" } @{ $n->{fields} }[1 .. $#{ $n->{fields} }]], ['delayed rfc822; a@hop.example'], 'a delay is told of what was attempted');
$hop->offers('DSN');
$s->ctl('queue', 'release', '--recipient', 'held.example', '--reason', 'test');
$s->advance(2 * 3_600_000);
is(ends($id), 'delivered delivered', 'both arrive at last');
notices($id, 0);
$c = $s->login($me);

# --- real servers ---

SKIP: {
	skip 'they need root', 8 unless $postfix;
	$id = send_one(' RET=HDRS ENVID=to-postfix', 'real', 'box@postfix.example' => ' NOTIFY=SUCCESS ORCPT=rfc822;Box+2B1@list.example');
	is(ends($id), 'delivered', 'Postfix takes it');
	my @said;
	ok(Sekisho::wait_for(30, sub { @said = grep { /to-postfix/ && /^Action: delivered/m } $s->delivered }), 'and confirms it to the sender') or diag $postfix->log;
	like($said[0] // '', qr/^Original-Recipient: rfc822;\s?Box\+1\@list\.example/m, 'naming what the client named');
	notices($id, 0);
	$id = send_one(' RET=FULL ENVID=to-opensmtpd', 'real', 'box@opensmtpd.example' => ' NOTIFY=FAILURE,DELAY ORCPT=rfc822;Box+2B1@list.example',
		'crate@opensmtpd.example' => ' NOTIFY=DELAY'); # it adds up the NOTIFY of recipients, and refuses NEVER with others
	is(ends($id), 'delivered delivered', 'OpenSMTPD takes it') or diag $opensmtpd->log;
	notices($id, 0);
}

is($s->stop, 0, 'stops cleanly');
done_testing;

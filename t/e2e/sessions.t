#!/usr/bin/perl
# Setup: a service with two msa processes, one class besides the standard one, and low limits of sessions.
# Expectation: the NOC sees every session and can end it; passwords, suspensions, classes and removals reach open sessions and the next login at
# once, each with its reply; a message whose data has begun is still answered; the limits hold over all processes, also after auth was killed.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Digest::SHA qw(hmac_sha256 sha256);
use MIME::Base64;
use Sekisho;
use Test::More;
use Time::HiRes ();

my $s = Sekisho->new(conf => <<'CONF');
msa: { processes: 2 }
limits: { account_sessions: 4, prefix_sessions: 12 }
auth: { failure_delay: 10ms }
contact: support@isp.example or 0570-000
quota: { recipients: 2/day }
classes: { business: { recipients: 5/day } }
CONF
$SIG{ALRM} = sub { die "hangs:\n" . $s->log };
alarm 240;
my ($me, $you, $password) = ('alice@example.test', 'bob@example.test', $Sekisho::PASSWORD);
my $third = 'carol@example.test';
$s->account($me, $you, $third);

# What AUTH PLAIN says to a new client, and the client.
sub attempt {
	my ($account, $with) = @_;
	my $c = $s->connect;
	$c->open_session or return '';
	return ($c->cmd('AUTH PLAIN ' . encode_base64("\0$account\0$with", '')), $c);
}

sub sessions { return @{$s->json('session', 'list', @_)->{sessions} // []} }
# Ended sessions leave the list as soon as msa says so.
sub wait_count { my ($n, @of) = @_; return Sekisho::wait_for(10, sub { $n == sessions(@of) }) }

# The list
my $idle = $s->login($me);
my $other = $s->login($you, 'submissions');
my $stranger = $s->connect;
$stranger->reply;
ok(wait_count(3), 'every client is listed') or diag $s->ctl('session', 'list');
my ($row) = sessions('--account', $me);
is_deeply([sort keys %$row], [sort qw(session account ip port listener tls mechanism since)], 'JSON');
is_deeply([@$row{qw(account ip port listener tls mechanism)}], [$me, '127.0.0.1', $idle->{s}->sockport, 'submission', 'TLSv1.3', 'PLAIN'], 'who, from where, how');
like($s->ctl('session', 'list'), qr/\ASESSION +SINCE +ACCOUNT +IP +PORT +LISTENER +TLS +MECHANISM\n\d+ +\S+ +alice.*\n\d+ +\S+ +bob\S+ +127\.0\.0\.1 +\d+ +submissions .*\n\d+ +\S+ +- /,
	'a table');

# Kill
like($s->ctl('session', 'kill', $row->{session}), qr/\Asessions ended: 1\n/, 'one is ended by its number');
like($idle->reply, qr/^421 4\.7\.0 Session ended by an operator/, 'and told so');
is($idle->reply, '', 'and the connection ends');
ok(wait_count(0, '--account', $me), 'and it is gone from the list');
$s->ctl('session', 'kill', $row->{session});
is($? >> 8, 1, 'a session that is gone is not found');
$s->ctl('session', 'kill', $_) and is($? >> 8, 64, "session kill $_ is wrong usage") for 'x', '0', '-1';
for ([], ['1', '--account', $me]) {
	$s->ctl('session', 'kill', @$_);
	is($? >> 8, 64, "session kill @$_: wrong usage");
}
my @many = map { $s->login($me) } 1 .. 3;
like($s->ctl('session', 'kill', '--account', $me), qr/\Asessions ended: 3\n/, 'all of an account');
like($_->reply, qr/^421 4\.7\.0 /, 'each is told') for @many;
like($other->cmd('NOOP'), qr/^250/, 'others go on');
wait_count(0, '--account', $me);

# In the middle of things
sub in_data {
	my ($account) = @_;
	my $c = $s->login($account);
	$c->cmd("MAIL FROM:<$account>");
	$c->cmd('RCPT TO:<carol@example.org>');
	like($c->cmd('DATA'), qr/^354/, 'data begins');
	$c->raw("From: <$account>\r\n\r\nhalf of it\r\n");
	return $c;
}
{
	my $data = in_data($me);
	my $open = $s->login($me);
	like($open->cmd("MAIL FROM:<$me>"), qr/^250/, 'and another transaction is open');
	$s->ctl('session', 'kill', '--account', $me);
	like($open->reply, qr/^421 4\.7\.0 /, 'which ends');
	$data->raw("the rest\r\n.\r\n");
	like($data->reply, qr/^250 2\.0\.0 Queued/, 'but data that has begun is answered');
	like($data->reply, qr/^421 4\.7\.0 /, 'before the session ends');
	ok(Sekisho::wait_for(20, sub { grep { /the rest/ } $s->delivered }), 'and arrives');
	wait_count(0, '--account', $me);
}

# SCRAM-SHA-256 up to the client's proof, which is returned with the client.
sub scram_half {
	my ($account, $with) = @_;
	my $c = $s->connect;
	$c->open_session or return;
	my $bare = "n=$account,r=clientnonce";
	my ($text) = $c->cmd('AUTH SCRAM-SHA-256 ' . encode_base64("n,,$bare", '')) =~ /^334 (\S+)/ or return;
	my $first = decode_base64($text);
	my ($nonce, $salt, $count) = $first =~ /^r=([^,]+),s=([^,]+),i=(\d+)$/ or return;
	my $salted = my $u = hmac_sha256(decode_base64($salt) . pack('N', 1), $with);
	$salted ^= $u = hmac_sha256($u, $with) for 2 .. $count;
	my $key = hmac_sha256('Client Key', $salted);
	my $proof = $key ^ hmac_sha256("$bare,$first,c=biws,r=$nonce", sha256($key));
	return ($c, encode_base64("c=biws,r=$nonce,p=" . encode_base64($proof, ''), ''));
}

# Passwords
{
	my ($scram, $proof) = scram_half($me, $password);
	like($scram->cmd($proof), qr/^334 /, 'SCRAM-SHA-256: the proof is right');
	like($scram->cmd(''), qr/^235/, 'and is a login');
	my ($late, $late_proof) = scram_half($me, $password);
	my $open = $s->login($me);
	is(scalar(grep { /^235/ } map { (attempt($me, $password))[0] } 1 .. 2), 2, 'a password that is remembered');
	like($s->ctl_with("a new password\n", 'account', 'passwd', $me), qr/^alice/m, 'is changed');
	like((attempt($me, $password))[0], qr/^535 5\.7\.8/, 'and refused at once');
	like($late->cmd($late_proof), qr/^334 /, 'a proof with the old one, asked for before,');
	like($late->cmd(''), qr/^535 5\.7\.8/, 'is no login, either');
	like((attempt($me, 'a new password'))[0], qr/^235/, 'the new one is right');
	like($open->cmd("MAIL FROM:<$me>"), qr/^250/, 'an open session goes on');
	like($s->ctl_with("short\n", 'account', 'passwd', $me), qr/too short/, 'a short one is refused');
	$s->ctl_with("long enough\n", 'account', 'passwd', 'nobody@example.test');
	is($? >> 8, 1, 'so is that of nobody');
	$s->ctl_with("$password\n", 'account', 'passwd', $me);
	$s->ctl('session', 'kill', '--account', $me);
}
wait_count(0, '--account', $me);

# Suspension
{
	my $open = $s->login($me);
	my $data = in_data($me);
	my ($half, $proof) = scram_half($me, $password);
	like($s->ctl('account', 'suspend', $me, '--reason', 'infected, ticket 17'), qr/^alice.* suspended .*infected, ticket 17$/m, 'suspended, with a reason');
	like($open->reply, qr/^421 4\.7\.0 Account suspended, contact support\@isp\.example or 0570-000, code K7/, 'its session ends');
	$data->raw(".\r\n");
	like($data->reply, qr/^250 |^450 /, 'a message in its data is answered');
	like($data->reply, qr/^421 4\.7\.0 Account suspended/, 'then that one ends, too');
	like((attempt($me, $password))[0], qr/^525 5\.7\.13 Account suspended, contact support\@isp\.example or 0570-000, code K7/, 'the right password hears why');
	like((attempt($me, 'not right'))[0], qr/^535 5\.7\.8/, 'a wrong one hears nothing');
	$half->cmd($proof);
	like($half->cmd(''), qr/^525 5\.7\.13 /, 'so does SCRAM, begun before');
	my ($said, $c) = attempt($me, $password);
	is(scalar(grep { /^525/ } $said, map { $c->cmd('AUTH PLAIN ' . encode_base64("\0$me\0$password", '')) } 1, 2), 3, 'again and again');
	like($c->reply, qr/^421 4\.7\.0 Too many auth/, 'but not for ever');
	my $show = $s->json('account', 'show', $me)->{accounts}[0];
	is_deeply([@$show{qw(state reason class)}], ['suspended', 'infected, ticket 17', 'standard'], 'account show');
	cmp_ok($show->{changed}, 'ge', $show->{created}, 'and when');
	like($s->ctl('account', 'resume', $me), qr/^alice.* active /m, 'resumed');
	like((attempt($me, $password))[0], qr/^235/, 'it logs in');
	is($s->json('account', 'show', $me)->{accounts}[0]{reason}, '', 'the reason is gone');
	$s->ctl('session', 'kill', '--account', $me);
}
wait_count(0, '--account', $me);

# Classes
{
	my $c = $s->login($you);
	my $to = sub { [map { "r$_\@example.org" } 1 .. $_[0]] };
	like($c->send_mail($you, $to->(3), 'x'), qr/^450 4\.7\.1 Daily recipient limit 2 /, 'the standard class allows two');
	$c->cmd('RSET');
	like($s->ctl('account', 'class', $you, 'gold'), qr/no such class; it has standard, business/, 'a class that is not configured is refused');
	is($? >> 8, 1, 'with status 1');
	like($s->ctl('account', 'class', $you, 'business'), qr/^bob\S+ +business /m, 'another class');
	like($c->send_mail($you, $to->(5), 'x'), qr/^250/, 'is in force in the open session');
	like($s->login($you)->send_mail($you, 'one@example.org', 'x'), qr/^450 4\.7\.1 Daily recipient limit 5 /, 'and in the next');

	# What is left, for who asks after the login
	my $third_c = $s->login($third);
	like($third_c->cmd('EHLO client.example.test'), qr/^250-LIMITS RCPTMAX=2 MAILMAX=100\r$/m, 'LIMITS: what the account may send today');
	like($third_c->send_mail($third, 'one@example.org', 'x'), qr/^250/, 'less one');
	$third_c->cmd("MAIL FROM:<$third>");
	like($third_c->cmd('EHLO client.example.test'), qr/^250-LIMITS RCPTMAX=1 MAILMAX=99\r$/m, 'is one less');
	like($third_c->cmd('RCPT TO:<one@example.org>'), qr/^503/, 'EHLO ended the transaction');
	like($third_c->send_mail($third, 'two@example.org', 'x'), qr/^250/, 'and when all is used up');
	like($third_c->cmd('EHLO client.example.test'), qr/^250-LIMITS RCPTMAX=1 MAILMAX=98\r$/m, 'one is the least that can be said');
	$s->ctl('quota', 'reset', $third, '--reason', 'test');
	is($?, 0, 'a reset');
	like($third_c->cmd('EHLO client.example.test'), qr/^250-LIMITS RCPTMAX=2 MAILMAX=98\r$/m, 'is seen at once');
	like($c->cmd('EHLO client.example.test'), qr/^250-LIMITS RCPTMAX=1 /m, 'another account has its own');
	$third_c->cmd('QUIT');

	# Hammering; one refusal there was already.
	my ($refused, $last) = (0, '');
	$c->cmd("MAIL FROM:<$you>");
	while ($refused < 50) {
		$last = $c->cmd("RCPT TO:<x$refused\@example.org>");
		last unless $last =~ /^450/;
		$refused++;
		$last = $c->reply, last if $refused == 19;
	}
	is($refused, 19, 'whoever does not hear that the limit is reached is refused 20 times');
	like($last, qr/^421 4\.7\.28 /, 'and let go');
}
{
	my $c = $s->login($third);
	$c->cmd("MAIL FROM:<$third>");
	my @said = map { $c->cmd("RCPT TO:<y$_\@example.org>") } 1 .. 30;
	is(scalar(grep { /^450/ } @said), 28, 'but not in a message that has recipients');
	like($c->cmd('DATA'), qr/^354/, 'which is still taken');
	$c->raw(".\r\n");
	like($c->reply, qr/^250/, 'and queued');
	$c->cmd("MAIL FROM:<$third>");
	like($c->cmd('RCPT TO:<z@example.org>'), qr/^450/, 'the next refusal');
	like($c->reply, qr/^421 4\.7\.28/, 'is the last');
	$s->ctl('session', 'kill', '--account', $_) for $me, $you;
}
ok(wait_count(0, '--account', $_)) for $me, $you;

# Limits
{
	$s->ctl('session', 'kill', $_->{session}) for sessions();
	wait_count(0);
	my @mine = map { $s->login($me) } 1 .. 4;
	is(scalar(grep { $_ } @mine), 4, 'four sessions of an account');
	my ($said, $c) = attempt($me, $password);
	like($said, qr/^421 4\.7\.0 Limit of 4 sessions of one account reached/, 'not five');
	is($c->reply, '', 'and it ends');
	ok(wait_count(4), 'four remain');
	$mine[0]->cmd('QUIT');
	ok(wait_count(3), 'one leaves');
	push @mine, $s->login($me);
	ok($mine[-1], 'another one fits');

	my @more = map { my $new = $s->connect; $new->reply; $new } 1 .. 8;
	wait_count(12);
	my ($on_587, $on_465) = ($s->connect, $s->connect('submissions'));
	like($on_587->reply . $on_587->reply, qr/^421 4\.7\.0 Limit of 12 sessions from one network address reached/m, 'an address may have twelve');
	like($on_465->reply, qr/^421 4\.7\.0 Limit of 12 /, 'which by implicit TLS is said behind the handshake');

	my @silent = map { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $s->{ports}{submissions}) } 1 .. 20;
	my $began = Time::HiRes::time();
	ok(!grep({ $_->sysread(my $octet, 1) } @silent), 'who is one too many and never shakes hands is let go');
	cmp_ok(Time::HiRes::time() - $began, '<', 20, 'long before a handshake may end');

	# auth is killed: it learns everything anew.
	ok(wait_count(12), 'twelve are left');
	my @before = sort map { "$_->{session} $_->{account} $_->{mechanism} $_->{port} $_->{since}" } sessions();
	kill 'KILL', $s->pids('sekisho-auth');
	ok(Sekisho::wait_for(20, sub { my $l = $s->json('session', 'list'); $l && 12 == @{$l->{sessions} // []} }), 'auth is killed, and told of all sessions again');
	is_deeply([sort map { "$_->{session} $_->{account} $_->{mechanism} $_->{port} $_->{since}" } sessions()], \@before, 'as they were');
	my $late = $s->connect;
	like($late->reply . $late->reply, qr/^421 4\.7\.0 Limit of 12 /m, 'the limit still holds');
	like($_->cmd('NOOP'), qr/^250/, 'and no session was hurt') for $mine[1], $more[0];
}
Sekisho::wait_for(10, sub { sessions() < 8 });
attempt('"x ip=203.0.113.9"@example.test', 'wrong');
is($s->stop, 0, 'stops cleanly');
like($s->log, qr/login-refused account=\S+\@example\.test ip=127\.0\.0\.1 /, 'no name is taken for an address');
unlike($s->log, qr/ ip=203/, 'that somebody might block');
unlike($s->log, qr/\Q$password\E|a new password/, 'no secret is in the log');
done_testing;

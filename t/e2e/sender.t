#!/usr/bin/perl
# Setup: a service with two msa processes, accounts with identities of every kind, and a class that may send as anybody.
# Expectation: MAIL, From and Sender take what an account was granted and nothing else; grants, delegations and classes reach open sessions at
# once, and outlive a restart of auth; sender explain says what a session says, and its remedy is right; every mistake is told.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use Test::More;

my $s = Sekisho->new(conf => <<"CONF");
msa: { processes: 2 }
auth: { failure_delay: 10ms }
limits: { errors_soft: 1000, errors_hard: 1000, messages: 1000 }
classes:
  smarthost: { senders: any, recipients: 100000/day, messages: 100000/day, burst_recipients: off, burst_messages: off }
$Sekisho::UNLIMITED
CONF
$SIG{ALRM} = sub { die "hangs:\n" . $s->log };
alarm 300;
my ($alice, $boss, $company, $smart) = ('alice@example.test', 'boss@example.test', 'mx@company.test', 'smart@example.test');
$s->account($alice, $boss, $company, $smart, 'taken@example.test');

# What sekishoctl says, and with which status it ends.
sub ctl {
	my ($status, @args) = @_;
	my $text = $s->ctl(@args);
	is($? >> 8, $status, "@args: exit status $status") or diag $text;
	return $text;
}
sub add { return ctl(0, 'account', 'identity', 'add', @_) }
sub drop { return ctl(0, 'account', 'identity', 'remove', @_) }

sub mail {
	my ($c, $address) = @_;
	my $said = $c->cmd("MAIL FROM:<$address>");
	$c->cmd('RSET');
	return $said;
}
# A message with that header section.
sub content { my ($c, @fields) = @_; return content_as($c, '', @fields) }
sub content_as {
	my ($c, $parameters, @fields) = @_;
	my $account = $c->{account};
	return 'no transaction' unless $c->cmd("MAIL FROM:<$account>$parameters") =~ /^250/ && $c->cmd('RCPT TO:<bob@example.org>') =~ /^250/ && $c->cmd('DATA') =~ /^354/;
	$c->raw(join('', map { "$_\r\n" } @fields) . "\r\nx\r\n.\r\n");
	return $c->reply;
}
# By every way that a sender can be named, and by sender explain.
sub may {
	my ($c, $address, $rule, $name) = @_;
	my $own = $c->{account};
	like(mail($c, $address), qr/^250/, "$name: MAIL");
	like(content($c, "From: Somebody <$address>"), qr/^250/, "$name: From");
	like(content($c, "From: $own", "Sender: $address"), qr/^250/, "$name: Sender");
	like(content($c, "From: $own, Group: $address;", "Sender: $own"), qr/^250/, "$name: one of the authors");
	my $why = $s->json('sender', 'explain', $own, $address);
	is($? >> 8, 0, "$name: explain exits with 0");
	ok($why->{allowed} && !defined $why->{remedy}, "$name: explain says yes");
	is($why->{rule}, $rule, "$name: by $rule");
	return $why;
}
sub may_not {
	my ($c, $address, $name) = @_;
	my $own = $c->{account};
	like(mail($c, $address), qr/^553 5\.7\.1 <.*>: .*not owned.*ask your provider/, "$name: MAIL");
	like(content($c, "From: $address"), qr/^550 5\.7\.1 <.*>: .*not owned.*ask your provider/, "$name: From");
	like(content($c, "From: $own", "Sender: $address"), qr/^550 5\.7\.1 /, "$name: Sender");
	like(content($c, "From: $own, Group: $address;", "Sender: $own"), qr/^550 5\.7\.1 /, "$name: one of the authors");
	my $why = $s->json('sender', 'explain', $own, $address);
	is($? >> 8, 1, "$name: explain exits with 1");
	ok(!$why->{allowed} && $why->{rule} eq 'none' && !defined $why->{identity}, "$name: explain says no");
	return $why;
}
sub login { my ($account) = @_; my $c = $s->login($account) or die $s->log; $c->{account} = $account; return $c }

# An account has its name, and its details.
my $c = login($alice);
my $other = login($alice); # in whichever process
may($c, 'Alice@EXAMPLE.test', 'own', 'its name');
my $why = may($c, 'alice+list@example.test', 'own', 'its name with a detail');
like($why->{why}, qr/detail/, 'and explain says so');
may_not($c, 'info@example.test', 'nobody\'s address');
like(mail($c, ''), qr/^250/, 'the null sender is everybody\'s');

# Everything that can be granted, in a session that is open
my %granted = (
	'info@example.test' => ['address', 'info@example.test'],
	'sales@example.test --details' => ['details', 'sales@example.test', 'sales+june@example.test'],
	'boss@example.test --delegate' => ['delegation', 'boss@example.test', 'boss+travel@example.test'],
	'@club.test' => ['domain', 'anybody@club.test', '"any body"@CLUB.test'],
	'@.club.test' => ['subdomains', 'x@youth.club.test', 'x@a.youth.club.test'],
);
for my $what (sort keys %granted) {
	my ($kind, @addresses) = @{$granted{$what}};
	my ($identity, @options) = split / /, $what;
	may_not($c, $addresses[0], "$what before");
	like(add($alice, $identity, @options), qr/^\Q$identity\E +$kind +\S+ +\S/m, "$what is added");
	may($c, $_, $kind, "$_ by $what") for @addresses;
	like(mail($other, $addresses[0]), qr/^250/, "$what: in all sessions");
}
may_not($c, $_, $_) for 'info+x@example.test', 'x@youthclub.test', 'sales@example.test.org', 'taken@example.test';

# Who, when, and what a session says is what explain says.
my $list = $s->json('account', 'identity', 'list', $alice)->{identities};
is_deeply([map { "$_->{identity} $_->{kind}" } @$list],
	[map { "$_" } 'alice@example.test own', '@.club.test subdomains', '@club.test domain', 'boss@example.test delegation', 'info@example.test address', 'sales@example.test details'],
	'the list has them all, the name first');
ok(!grep({ !$_->{by} || $_->{since} !~ /^\d{4}-/ } @$list[1 .. 5]) && !defined $list->[0]{by}, 'with who granted it and when');
like(ctl(0, 'account', 'identity', 'list', $alice), qr/\AIDENTITY +KIND +SINCE +BY\nalice\@example\.test +own +- +-\n/, 'and as a table');
$why = $s->json('sender', 'explain', $alice, 'SALES+x@example.test');
is_deeply([sort keys %$why], [sort qw(account sender allowed rule why remedy class state identity)], 'explain: JSON');
is_deeply([sort keys %{$why->{identity}}], [sort qw(identity kind by since)], 'and the grant in it');
is($why->{identity}{identity}, 'sales@example.test', 'which is the one that allows it');
like(ctl(0, 'sender', 'explain', $alice, 'info@example.test'), qr/^allowed +yes: .*^rule +address\n.*^identity +info\@example\.test\n.*^granted +\S+ by \S/ms, 'explain for people');

# The remedy is right.
for my $address ('new@example.test', '"odd \'name"@example.test', 'taken@example.test') {
	my $text = ctl(1, 'sender', 'explain', $alice, $address);
	like($text, qr/^allowed +no: /m, "$address: no");
	my ($remedy) = $text =~ /^to allow it +sekishoctl (.*)$/m;
	ok($remedy, "$address: with a remedy") or next;
	my $command = "$Sekisho::BUILD/sekishoctl -s $s->{dir}/admin.sock $remedy";
	like(`$command 2>&1`, qr/\Q$address\E/, "$address: a shell runs it");
	ctl(0, 'sender', 'explain', $alice, $address);
	like(mail($c, $address), qr/^250/, "$address: and it helps");
	drop($alice, $address);
}

# A restart of auth
{
	my ($pid) = $s->pids('sekisho-auth');
	kill 'KILL', $pid;
	ok(Sekisho::wait_for(20, sub { my ($now) = $s->pids('sekisho-auth'); $now && $now != $pid && $s->json('account', 'list') }), 'auth is killed and comes back');
	like(mail($c, 'info@example.test'), qr/^250/, 'an open session knows what it knew');
	drop($alice, 'info@example.test');
	like(mail($c, 'info@example.test'), qr/^553/, 'and hears what changes');
	like(mail($other, 'info@example.test'), qr/^553/, 'as every one does');
	my $new = login($alice);
	like(mail($new, 'x@youth.club.test'), qr/^250/, 'a new session has what was granted before');
	like(mail($new, 'info@example.test'), qr/^553/, 'but for what was taken back');
}

# A sender that was taken stays taken for that message.
{
	add($alice, 'info@example.test');
	like($c->cmd('MAIL FROM:<info@example.test>'), qr/^250/, 'a transaction begins');
	drop($alice, 'info@example.test');
	like($c->cmd('RCPT TO:<bob@example.org>'), qr/^250/, 'its sender is taken back');
	$c->cmd('DATA');
	$c->raw("From: $alice\r\n\r\nx\r\n.\r\n");
	like($c->reply, qr/^250/, 'and it goes through');
	$c->cmd("MAIL FROM:<$alice>");
	$c->cmd('RCPT TO:<bob@example.org>');
	$c->cmd('DATA');
	$c->raw("From: info\@example.test\r\n\r\nx\r\n.\r\n");
	like($c->reply, qr/^550/, 'an author is judged at its end');
}

# A company's mail server
{
	my $m = login($company);
	add($company, '@company.test');
	may($m, 'ceo@company.test', 'domain', 'a domain of its own');
	may_not($m, 'x@branch.company.test', 'a domain below it');
	may_not($m, 'alice@example.test', 'another\'s domain');
}

# Names and identities do not mix.
add($alice, 'info@example.test');
for my $case (
	[1, qr/is an account; .*sekishoctl account identity add alice\@example\.test taken\@example\.test --delegate$/, $alice, 'taken@example.test'],
	[1, qr/is an account/, $alice, 'taken@example.test', '--details'],
	[1, qr/nobody\@example\.test is no account/, $alice, 'nobody@example.test', '--delegate'],
	[1, qr/is the account's name/, $alice, 'ALICE@example.test'],
	[1, qr/has info\@example\.test already/, $alice, 'info@example.test'],
	[1, qr/no such account/, 'nobody@example.test', 'info@example.test'],
	[1, qr/"account" is no mail address/, 'nobody', 'info@example.test'],
	(map { [1, qr/"identity" is none; write user\@example\.net, \@example\.net/, $alice, $_] } 'info', '@', '@test', 'example.test', '@.test', '<info@example.test>', 'info@@example.test', ''),
	[64, qr/has the details of the account/, $alice, 'taken@example.test', '--details', '--delegate'],
	[64, qr/neither delegated nor has it details/, $alice, '@example.test', '--details'],
	[64, qr/neither delegated nor has it details/, $alice, '@example.test', '--delegate'],
	[64, qr/usage: sekishoctl account identity add ACCOUNT ADDRESS/, $alice],
	[64, qr/--details takes no text/, $alice, 'x@example.test', '--details=yes'],
) {
	my ($status, $says, @args) = @$case;
	like(ctl($status, 'account', 'identity', 'add', @args), $says, "@args: told why");
}
like(ctl(1, 'account', 'identity', 'remove', $alice, 'nothing@example.test'), qr/was not granted nothing\@example\.test; .*identity list alice/, 'what it does not have');
like(ctl(1, 'account', 'identity', 'remove', 'nobody@example.test', 'x@example.test'), qr/no such account/, 'of nobody');
like(ctl(1, 'account', 'identity', 'list', 'nobody@example.test'), qr/no such account/, 'list of nobody');
like(ctl(1, 'sender', 'explain', 'nobody@example.test', 'x@example.test'), qr/no such account/, 'explain of nobody');
like(ctl(1, 'sender', 'explain', $alice, '@example.test'), qr/"sender" is no mail address/, 'explain a domain');
like(ctl(64, 'account', 'identity'), qr/account identity what\?/, 'the words alone');
like(ctl(0, 'account', 'identity', '--help'), qr/account identity add .*account identity list/s, 'and their help');
$s->ctl_with("$Sekisho::PASSWORD\n", 'account', 'add', 'info@example.test');
is($? >> 8, 1, 'what somebody has becomes no account');
like($s->ctl_with("$Sekisho::PASSWORD\n", 'account', 'add', 'info@example.test'), qr/alice\@example\.test may send as it; .*account identity remove alice\@example\.test info\@example\.test/, 'and the way out is told');
like($s->ctl_with("$Sekisho::PASSWORD\n", 'account', 'add', $boss), qr/exists already/, 'an account that is delegated exists');

# The end of an account ends its delegations.
may($c, $boss, 'delegation', 'the boss');
ctl(0, 'account', 'remove', $boss);
like(mail($c, $boss), qr/^553/, 'is gone, and open sessions know');
like($s->json('sender', 'explain', $alice, $boss)->{remedy}, qr/add alice\@example\.test boss\@example\.test$/, 'explain too');
ok(!grep({ $_->{kind} eq 'delegation' } @{$s->json('account', 'identity', 'list', $alice)->{identities}}), 'the list too');
$s->account($boss);
may_not($c, $boss, 'the next of that name');
my $count = @{$s->json('account', 'identity', 'list', $alice)->{identities}};
ctl(0, 'account', 'remove', $alice);
$s->account($alice);
is(scalar @{$s->json('account', 'identity', 'list', $alice)->{identities}}, 1, "what it was granted ($count) ends with an account");
$c = login($alice);
may_not($c, 'sales@example.test', 'the next Alice');

# Two with one address, and more of them than anybody reads
add($_, 'desk@example.test') for $alice, $company;
{
	my $m = login($company);
	like(mail($_, 'desk@example.test'), qr/^250/, 'two accounts may have one address') for $c, $m;
	drop($company, 'desk@example.test');
	like(mail($m, 'desk@example.test'), qr/^553/, 'and one of them lose it');
	like(mail($c, 'desk@example.test'), qr/^250/, 'without the other');
}
add($alice, "alias$_\@example.test") for 1 .. 20;
like(mail($c, 'alias17@example.test'), qr/^250/, 'many');

# Other scripts: typed and sent in either normal form, domains as U- or A-labels
{
	add($alice, "cafe\xcc\x81\@example.test");
	like(ctl(0, 'account', 'identity', 'list', $alice), qr/^caf\xc3\xa9\@example\.test +address /m, 'a local part in UTF-8');
	add($alice, "\@B\xc3\xbccher.test");
	like(ctl(0, 'account', 'identity', 'list', $alice), qr/^\@xn--bcher-kva\.test +domain /m, 'a domain with a U-label');
	for my $address ("caf\xc3\xa9\@example.test", "cafe\xcc\x81\@example.test", "x\@b\xc3\xbccher.test", 'x@xn--bcher-kva.test') {
		like($c->cmd("MAIL FROM:<$address> SMTPUTF8"), qr/^250/, "MAIL $address");
		$c->cmd('RSET');
		like(content($c, "From: <$address>"), qr/^550 5\.6\.7 /, "From: $address only where MAIL says SMTPUTF8") if $address =~ /[^ -~]/;
		like(content_as($c, ' SMTPUTF8', "From: <$address>"), qr/^250/, "From: $address");
		ctl(0, 'sender', 'explain', $alice, $address);
	}
	like(content_as($c, ' SMTPUTF8', "From: th\xc3\xa9\@example.test"), qr/^550 5\.7\.1 /, 'From: somebody else');
	like($c->cmd("MAIL FROM:<th\xc3\xa9\@example.test> SMTPUTF8"), qr/^553 5\.7\.1 /, 'MAIL: somebody else');
	like(mail($c, 'x@XN--bcher-kva.test'), qr/^250/, 'MAIL with an A-label');
	like(mail($c, 'cafe@example.test'), qr/^553 5\.7\.1 /, 'what only looks alike');
	my ($remedy) = ctl(1, 'sender', 'explain', $alice, "th\xc3\xa9\@example.test") =~ /^to allow it +sekishoctl (.*)$/m;
	`$Sekisho::BUILD/sekishoctl -s $s->{dir}/admin.sock $remedy`;
	ctl(0, 'sender', 'explain', $alice, "th\xc3\xa9\@example.test");
	drop($alice, "caf\xc3\xa9\@example.test");
	ctl(1, 'sender', 'explain', $alice, "cafe\xcc\x81\@example.test");
}

# A class that may send as anybody
{
	my $m = login($smart);
	like(mail($m, 'anybody@anywhere.example'), qr/^553/, 'in the standard class only as itself');
	ctl(0, 'account', 'class', $smart, 'smarthost');
	my $said = may($m, 'anybody@anywhere.example', 'any', 'in its class');
	is($said->{class}, 'smarthost', 'which explain names');
	may($m, $smart, 'own', 'its own name');
	like($s->log, qr/ sender-any account=smart\@example\.test class=smarthost sender=anybody\@anywhere\.example$/m, 'each is logged');
	unlike($s->log, qr/ sender-any .*sender=smart\@/, 'but not its own');
	ctl(0, 'account', 'class', $smart, 'standard');
	like(mail($m, 'anybody@anywhere.example'), qr/^553/, 'and it ends with the class');
}

# The separator is configured; a reload reaches open sessions.
{
	my $conf = do { local (@ARGV, $/) = "$s->{dir}/sekisho.yaml"; <> };
	my $with = sub {
		open my $f, '>', "$s->{dir}/sekisho.yaml" or die $!;
		print $f $conf =~ s/^auth: \{/auth: { detail_separator: "$_[0]",/mr;
		close $f;
		ctl(0, 'reload');
	};
	$with->('-');
	ok(Sekisho::wait_for(10, sub { mail($c, 'alice-list@example.test') =~ /^250/ }), 'another separator');
	like(mail($c, 'alice+list@example.test'), qr/^553/, 'is the only one');
	is($s->json('sender', 'explain', $alice, 'alice-list@example.test')->{rule}, 'own', 'explain knows it');
	$with->('off');
	ok(Sekisho::wait_for(10, sub { mail($c, 'alice-list@example.test') =~ /^553/ }), 'and none');
}

# On record
like($s->log, qr/ - identity-added account=alice\@example\.test identity=\@club\.test$/m, 'added');
like($s->log, qr/ - identity-removed account=alice\@example\.test identity=info\@example\.test$/m, 'removed');
like($s->log, qr/ - identity-ended account=alice\@example\.test identity=boss\@example\.test$/m, 'ended');
like($s->log, qr/ - admin command=account\.identity\.add by="[^"]+" result=done account="alice\@example\.test" identity="boss\@example\.test" delegate="yes"$/m, 'and who did it');

# A suspended account
ctl(0, 'account', 'suspend', $alice);
is($s->json('sender', 'explain', $alice, $alice)->{state}, 'suspended', 'explain says that it cannot log in');
done_testing;

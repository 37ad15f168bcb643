#!/usr/bin/perl
# Setup: configuration files with one mistake each, in themselves or about this machine (certificate, port, user), given to sekishod -t and to sekishod itself.
# Expectation: each is refused with exit status 1 and a line FILE:LINE:COLUMN: KEY: …, and nothing is started; the shipped sample parses; -T prints a
# configuration that means the same when it is read again.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Sekisho;
use Test::More;

my $s = Sekisho->new(no_start => 1, no_sink => 1);
my $dir = $s->{dir};
my $good = do { local $/; open my $f, '<', "$dir/sekisho.yaml" or die $!; <$f> };

sub run {
	my ($flag, $text) = @_;
	open my $f, '>', "$dir/try.yaml" or die $!;
	print $f $text;
	close $f;
	my $said = `$Sekisho::BUILD/sekishod $flag -c $dir/try.yaml 2>&1 </dev/null`;
	return ($? >> 8, $said);
}

my ($status, $said) = run('-t', $good);
is($status, 0, 'the good file passes') or diag $said;
my @bad = (
	['an unknown key, with the nearest one', "limitz: 3\n", 'limitz: .*limits'],
	['an unknown nested key', "limits: { message_sise: 3MiB }\n", 'limits\.message_sise: .*message_size'],
	['a wrong type', "limits: { recipients: many }\n", 'limits\.recipients: '],
	['a value out of range', "limits: { recipients: 0 }\n", 'limits\.recipients: '],
	['a unit that does not fit', "timeouts: { command: 25MiB }\n", 'timeouts\.command: '],
	['a list where a value belongs', "quota: { recipients: [1, 2] }\n", 'quota\.recipients: '],
	['a duplicate key', "hostname: other.example.test\n", 'hostname: '],
	['a quota without its window', "quota: { recipients: 500/fortnight }\n", 'quota\.recipients: '],
);
for (@bad) {
	my ($what, $yaml, $expect) = @$_;
	($status, $said) = run('-t', $good . $yaml);
	is($status, 1, "$what: exit 1") or diag $said;
	like($said, qr/^\Q$dir\E\/try\.yaml:\d+:\d+: $expect/m, "$what: named with its place");
}
($status, $said) = run('-t', $good =~ s{\Q$dir\E/cert\.pem}{$dir/none.pem}r);
is($status, 1, 'a missing certificate: exit 1');
like($said, qr/try\.yaml:\d+:\d+: tls\.certificate: .*none\.pem/, 'named with its place');
($status, $said) = run('-t', $good =~ s{\Q$dir\E/key\.pem}{$dir/cert.pem}r);
is($status, 1, 'a certificate given as key: exit 1');
like($said, qr/try\.yaml:\d+:\d+: tls\./, 'named with its place');
# What only this machine can tell.
system("openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out $dir/other.pem 2>/dev/null") == 0 or die 'openssl cannot make a key';
system('cp', "$dir/cert.pem", "$dir/closed.pem") == 0 or die $!;
chmod 0, "$dir/closed.pem";
mkdir "$dir/directory.pem";
# Root may read everything: there only the directory is unreadable.
my @closed = $> == 0 ? 'directory' : ('directory', 'closed');
my $taken = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1', LocalPort => $s->{ports}{submissions}) or die $!;
sub certify {
	my ($name, @opt) = @_;
	system("openssl req -x509 -nodes -subj /CN=localhost -keyout $dir/$name.key.pem -out $dir/$name.pem @opt 2>/dev/null") == 0 or die "openssl: $name";
	return $good =~ s{\Q$dir\E/cert\.pem}{$dir/$name.pem}r =~ s{\Q$dir\E/key\.pem}{$dir/$name.key.pem}r;
}
my $old = certify('old', '-newkey ec -pkeyopt ec_paramgen_curve:P-256');
system("openssl x509 -in $dir/old.pem -signkey $dir/old.key.pem -days -1 -out $dir/expired.pem 2>/dev/null && mv $dir/expired.pem $dir/old.pem") == 0 or die 'openssl: old';
my @machine = (
	['a weak key', certify('weak', '-newkey rsa:1024 -days 30'), 'tls\.certificate: .*RSA \(2048'],
	['a curve that TLS does not have', certify('curve', '-newkey ec -pkeyopt ec_paramgen_curve:secp256k1 -days 30'), 'tls\.certificate: .*EC \(P-256'],
	(map { ["a certificate that cannot be read ($_)", $good =~ s{\Q$dir\E/cert\.pem}{$dir/$_.pem}r, "tls\\.certificate: .*$_\\.pem"] } @closed),
	(map { ["a key that cannot be read ($_)", $good =~ s{\Q$dir\E/key\.pem}{$dir/$_.pem}r, "tls\\.key: .*$_\\.pem"] } @closed),
	['a key of another certificate', $good =~ s{\Q$dir\E/key\.pem}{$dir/other.pem}r, 'tls\.\w+: .*does not belong to the certificate'],
	['a port in use', $good, "listen\\.submissions: 127\\.0\\.0\\.1:$s->{ports}{submissions} is in use"],
);
push @machine, (
	['an unknown user', $good =~ s/user: nobody,/user: sekisho-none,/r, 'privilege\.user: no user "sekisho-none"'],
	['an unknown network user', $good =~ s/network_user: nobody/network_user: sekisho-none/r, 'privilege\.network_user: no user "sekisho-none"'],
	['root as user', $good =~ s/user: nobody,/user: root,/r, 'privilege\.user: "root" is root'],
) if $> == 0;
for (@machine) {
	my ($what, $yaml, $expect) = @$_;
	($status, $said) = run('', $yaml);
	is($status, 1, "$what: exit 1") or diag $said;
	like($said, qr/^\Q$dir\E\/try\.yaml:\d+:\d+: $expect/m, "$what: named with its place");
	unlike($said, qr/process up/, "$what: no process was started");
	ok(!-e "$dir/admin.sock" && !-e "$dir/spool", "$what: nothing was made");
}
close $taken;
($status, $said) = run('-t', $old);
is($status, 0, 'an expired certificate is no reason to stop the service');
like($said, qr/try\.yaml:\d+:\d+: tls\.certificate: warning: .*old\.pem: expired/, 'but told');
# What is no file to begin with.
POSIX::mkfifo("$dir/fifo", 0600) or die $!;
for (['a missing file', "$dir/none.yaml"], ['a directory', $dir], ['a FIFO', "$dir/fifo"], ['a device', '/dev/null']) {
	my ($what, $path) = @$_;
	$said = `$Sekisho::BUILD/sekishod -t -c $path 2>&1 </dev/null`;
	is($? >> 8, 1, "$what: exit 1");
	like($said, qr/^\Q$path\E: \S/, "$what: named");
}
SKIP: {
	skip 'only root could take it', 3 if $> != 0;
	mkdir "$dir/full";
	open my $file, '>', "$dir/full/precious" or die $!;
	close $file;
	chmod 0755, "$dir/full";
	($status, $said) = run('', $good =~ s{spool: \S+}{spool: $dir/full}r);
	is($status, 1, "somebody's directory as spool: exit 1");
	like($said, qr/try\.yaml:\d+:\d+: spool: .*full belongs to another user/, 'named with its place');
	is_deeply([(stat "$dir/full")[2, 4]], [040755, 0], 'and left as it was');
}
($status, $said) = run('', $good =~ s{accounts: \S+}{accounts: $dir/spool/../spool}r);
is($status, 1, 'accounts in the spool: exit 1') or diag $said;
like($said, qr/try\.yaml:\d+:\d+: accounts: the same directory as spool/, 'named with its place');
unlike($said, qr/process up/, 'and no process was started');

($status, $said) = run('-t', "a: [" . '[' x 50000);
is($status, 1, 'a nesting bomb is refused');
($status, $said) = run('', $good . "limitz: 3\n");
is($status, 1, 'sekishod itself refuses a bad file');
ok(!-e "$dir/admin.sock", 'and has started nothing');

($status, my $dump) = run('-T', $good . "limits: { message_size: 25MiB }\nquota: { recipients: 500/day }\n");
is($status, 0, '-T');
like($dump, qr/message_size: 25MiB/, 'sizes keep their unit');
like($dump, qr{recipients: 500/day}, 'so do quotas');
($status, my $again) = run('-T', $dump);
is($again, $dump, 'what -T prints means the same when it is read');
my $sample = `$Sekisho::BUILD/sekishod -T -c $Sekisho::TOP/etc/sekisho.yaml 2>&1`;
unlike($sample, qr/sekisho\.yaml:\d+:\d+: (?!tls\.)/, 'the shipped sample has no mistake but this machine may lack its certificate');

my @installed = glob "$Sekisho::TOP/build/sekisho*";
is(scalar @installed, 8, 'all programs are built as they are installed') if $Sekisho::BUILD !~ /san$/;
for my $program (@installed) {
	my @symbols = `nm $program`;
	ok(@symbols > 20 && !grep({ /clock_test/ } @symbols), ($program =~ s{.*/}{}r) . ' as installed does not contain the test clock');
}
done_testing;

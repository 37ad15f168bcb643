# The mail programs that people use, each told where to send, by which port and how to log in. To add one: a row, its package in t/packages.sh.
#   mechanisms  it can be told to use; undef leaves the choice to it
#   exact       it sends a file's octets as they are and this behind them, so the whole message can be compared
#   send        (how, file): sends a message, lines ended by LF; the exit status
#   compose     (how, subject, attachment): makes a message of its own with a file attached; without it, the program only sends
# how is { service, account, to, mechanism, implicit, password }.
package Clients;
use strict;
use warnings;
use File::Basename qw(basename);
use File::Temp qw(tempdir);
use Sekisho;

# Runs a program with an input; what it says goes to a file that say_more tells.
our $said = tempdir('sekisho-client-XXXXXX', TMPDIR => 1, CLEANUP => 1);
sub run {
	my ($input, @command) = @_;
	my $pid = fork // die $!;
	if (!$pid) {
		open STDIN, '<', $input or die "$input: $!";
		open STDOUT, '>', "$said/said" or die $!;
		open STDERR, '>&', \*STDOUT;
		# Nobody's own settings.
		delete @ENV{grep { /^(?:GIT_|MAILRC|EMAIL)/ } keys %ENV};
		%ENV = (%ENV, HOME => $said, GIT_CONFIG_NOSYSTEM => 1, map({ ("GIT_${_}_NAME" => 'Alice', "GIT_${_}_EMAIL" => 'alice@example.test') } 'AUTHOR', 'COMMITTER'),
			NODE_PATH => '/usr/share/nodejs');
		exec @command or die "$command[0]: $!";
	}
	waitpid $pid, 0;
	return $?;
}
sub say_more { local $/; open my $f, '<', "$said/said" or return ''; return <$f> // '' }

sub port { my ($how) = @_; return $how->{service}{ports}{$how->{implicit} ? 'submissions' : 'submission'} }

sub swaks {
	my ($how, @content) = @_;
	return run('/dev/null', 'swaks', '--silent', 3, '--server', '127.0.0.1', '--port', port($how), $how->{implicit} ? '--tls-on-connect' : '--tls',
		'--auth', $how->{mechanism} // (), '--auth-user', $how->{account}, '--auth-password', $how->{password}, '--from', $how->{account},
		'--to', $how->{to}, @content);
}

sub curl {
	my ($how, @content) = @_;
	return run('/dev/null', 'curl', '-sS', '--cacert', "$how->{service}{dir}/cert.pem", ($how->{mechanism} ? ('--login-options', "AUTH=$how->{mechanism}") : ()),
		'--user', "$how->{account}:$how->{password}", '--mail-from', $how->{account}, '--mail-rcpt', $how->{to}, @content,
		$how->{implicit} ? ('--url', 'smtps://localhost:' . port($how)) : ('--ssl-reqd', '--url', 'smtp://localhost:' . port($how)));
}

sub msmtp {
	my ($how, $file) = @_;
	return run($file, 'msmtp', '--file=/dev/null', '--host=127.0.0.1', '--port=' . port($how), '--auth=' . lc($how->{mechanism} // 'on'), "--user=$how->{account}",
		"--passwordeval=echo '$how->{password}'", '--tls=on', '--tls-starttls=' . ($how->{implicit} ? 'off' : 'on'), '--tls-certcheck=off',
		"--from=$how->{account}", $how->{to});
}

# Two ways of smtplib: what is a file's octets, and what is a message object.
sub python {
	my ($how, $what, @more) = @_;
	return run('/dev/null', 'python3', '-c', <<'PYTHON', $how->{implicit}, port($how), $how->{mechanism} // '', @$how{qw(account to password)}, $what, @more);
import smtplib, ssl, sys
from email.message import EmailMessage
implicit, port, mechanism, user, to, password, what = sys.argv[1:8]
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
client = smtplib.SMTP_SSL("127.0.0.1", int(port), context=context) if implicit == "1" else smtplib.SMTP("127.0.0.1", int(port))
if implicit != "1":
    client.starttls(context=context)
client.ehlo()
if mechanism:
    client.user, client.password = user, password
    client.auth(mechanism, getattr(client, "auth_" + mechanism.lower()))
else:
    client.login(user, password)
if what == "send":
    client.sendmail(user, to, open(sys.argv[8], "rb").read().replace(b"\n", b"\r\n"))
else:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = user, to, sys.argv[8]
    message.set_content("see attachment\n")
    message.add_attachment(open(sys.argv[9], "rb").read(), maintype="application", subtype="octet-stream", filename="data.bin")
    client.send_message(message)
client.quit()
PYTHON
}

sub nodemailer {
	my ($how, $what, @more) = @_;
	return run('/dev/null', 'node', '-e', <<'NODE', '--', $how->{implicit}, port($how), $how->{mechanism} // '', @$how{qw(account to password)}, $what, @more);
const [implicit, port, mechanism, user, to, pass, what, first, second] = process.argv.slice(1);
const transport = require('nodemailer').createTransport({ host: '127.0.0.1', port: +port, secure: implicit === '1', requireTLS: true,
	tls: { rejectUnauthorized: false }, auth: { user, pass }, authMethod: mechanism || undefined });
const message = what === 'send' ? { envelope: { from: user, to }, raw: { path: first } }
	: { from: user, to, subject: first, text: 'see attachment', attachments: [{ filename: 'data.bin', path: second }] };
transport.sendMail(message).catch(error => { console.error(error.message); process.exit(1); });
NODE
}

sub s_nail {
	my ($how, $subject, @more) = @_;
	my ($user, $host) = split /@/, $how->{account};
	return run(shift @more, 's-nail', '-:/', '-S', 'v15-compat', '-S', 'mta=' . ($how->{implicit} ? 'smtps' : 'smtp') . "://$user%40$host:$how->{password}\@127.0.0.1:"
		. port($how), ($how->{implicit} ? () : ('-S', 'smtp-config=starttls')), '-S', 'smtp-use-starttls', ($how->{mechanism} ? ('-S', 'smtp-auth=' . lc $how->{mechanism}) : ()),
		'-S', 'tls-verify=ignore', '-S', "from=$how->{account}", '-S', 'sendwait', '-s', $subject, @more, $how->{to});
}

sub git_send_email {
	my ($how, @files) = @_;
	return run('/dev/null', 'git', 'send-email', '--quiet', '--confirm=never', '--suppress-cc=all', '--no-validate', '--smtp-server=127.0.0.1', '--smtp-server-port=' . port($how),
		'--smtp-encryption=' . ($how->{implicit} ? 'ssl' : 'tls'), "--smtp-ssl-cert-path=$how->{service}{dir}/cert.pem", "--smtp-user=$how->{account}", "--smtp-pass=$how->{password}",
		($how->{mechanism} ? "--smtp-auth=$how->{mechanism}" : ()), "--from=Alice <$how->{account}>", "--to=$how->{to}", @files);
}

# A repository whose last change is the file; the change as a mail.
sub git_patch {
	my ($subject, $file) = @_;
	my $dir = tempdir('sekisho-git-XXXXXX', TMPDIR => 1, CLEANUP => 1);
	my @git = ('git', '-C', $dir);
	system('cp', $file, "$dir/data.bin");
	for (['init', '-q'], ['commit', '-q', '--allow-empty', '-m', 'first'], ['add', 'data.bin'], ['commit', '-q', '-m', $subject],
		['format-patch', '-q', '-1', '--binary', '--attach', '--subject-prefix=', '-o', $dir]) {
		run('/dev/null', @git, @$_) == 0 or die say_more();
	}
	return glob "$dir/*.patch";
}

our %CLIENTS = (
	swaks => {
		mechanisms => ['PLAIN', 'LOGIN', undef], exact => "\n",
		send    => sub { my ($how, $file) = @_; swaks($how, '--data', "\@$file") },
		compose => sub { my ($how, $subject, $file) = @_; swaks($how, '--header', "Subject: $subject", '--attach-name', 'data.bin', '--attach', "\@$file") },
	},
	curl => {
		mechanisms => ['PLAIN', 'LOGIN', undef], exact => '',
		send    => sub { my ($how, $file) = @_; curl($how, '--crlf', '--upload-file', $file) },
		compose => sub {
			my ($how, $subject, $file) = @_;
			curl($how, '-H', "From: $how->{account}", '-H', "To: $how->{to}", '-H', "Subject: $subject", '-F', '=see attachment;type=text/plain',
				'-F', "file=\@$file;encoder=base64;filename=data.bin");
		},
	},
	msmtp => {
		mechanisms => ['PLAIN', 'LOGIN', 'SCRAM-SHA-256', undef], exact => '',
		send => \&msmtp,
	},
	python => {
		mechanisms => ['PLAIN', 'LOGIN', undef], exact => '',
		send    => sub { my ($how, @more) = @_; python($how, 'send', @more) },
		compose => sub { my ($how, @more) = @_; python($how, 'compose', @more) },
	},
	nodemailer => {
		mechanisms => ['PLAIN', 'LOGIN', undef], exact => '',
		send    => sub { my ($how, @more) = @_; nodemailer($how, 'send', @more) },
		compose => sub { my ($how, @more) = @_; nodemailer($how, 'compose', @more) },
	},
	's-nail' => {
		mechanisms => ['PLAIN', 'LOGIN', undef],
		# Its own header around the file as a text.
		send    => sub {
			my ($how, $file) = @_;
			open my $f, '<', $file or die $!;
			my ($subject) = map { /^Subject: (.*)/ } <$f>;
			s_nail($how, $subject, $file);
		},
		compose => sub { my ($how, $subject, $file) = @_; s_nail($how, $subject, '/dev/null', '-a', "$file") },
	},
	'git send-email' => {
		mechanisms => ['PLAIN', 'LOGIN', undef],
		send    => \&git_send_email,
		compose => sub { my ($how, @more) = @_; git_send_email($how, git_patch(@more)) },
	},
);

1;

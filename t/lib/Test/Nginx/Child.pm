package Test::Nginx::Child;

# A test file that another one writes and runs, to see how it ends.
#
#   Test::Nginx::Child->start($t, $text)  runs it beside the test, in its
#                     directory, with the harness in reach
#   Test::Nginx::Child->nginx($t, $body)  the same for a file that runs plain
#                     nginx, makes one request, and then does what the body
#                     says; it writes "master PID port REAL-PORT"
#   ->wait            waits for its end, 60 seconds at most: (status as in $?,
#                     all that it wrote)
#   ->output          what it has written so far

use v5.36;

use Cwd qw/abs_path/;
use File::Basename qw/dirname/;

use Test::Nginx::Process qw/wait_until spawn alive reap/;

my $HEAD = <<'HEAD';
use v5.36;
use Test::More;
use Test::Nginx;
use Test::Nginx::Process qw/alive/;
my $t = Test::Nginx->new(timeout => 30)->has(qw/http proxy/)->plan(1);
$t->write_file_expand('nginx.conf', <<'CONF');
%%TEST_GLOBALS%%
worker_processes 2;
events { worker_connections 16; }
http {
    %%TEST_GLOBALS_HTTP%%
    server {
        listen 127.0.0.1:8080;
        location / { proxy_pass http://127.0.0.1:8080; }
        location /crit { proxy_pass http://unix:%%TESTDIR%%/none.sock; }
        location /ok { return 200; }
        location /status { try_files /status.json =404; }
    }
}
CONF
$t->run();
diag('master ', $t->pid(), ' port ', port(8080));
is(http_get('/ok')->status(), 200, 'request');
HEAD

my $serial = 0;

sub start ($class, $t, $text) {
	my $name = 'child-' . ++$serial;
	my $lib = abs_path(dirname(abs_path(__FILE__)) . '/../..');

	$t->write_file("$name.t", $text);

	# What a killed child leaves behind goes with the test's own directory.
	local $ENV{TEST_NGINX_TMPDIR} = $t->testdir();

	my $pid = spawn(
		out => $t->testdir() . "/$name.out", seconds => 90,
		exec => [ $^X, "-I$lib", $t->testdir() . "/$name.t" ],
	);

	return bless { t => $t, name => $name, pid => $pid }, $class;
}

sub nginx ($class, $t, $body) { return $class->start($t, $HEAD . $body) }

sub wait ($self) {
	wait_until(sub { !alive($self->{pid}) }, 60)
		or die "$self->{name}: process $self->{pid} does not end\n";

	return (reap($self->{pid}), $self->output());
}

sub output ($self) { return $self->{t}->read_file("$self->{name}.out") }

1;

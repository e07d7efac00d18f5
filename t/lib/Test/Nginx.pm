package Test::Nginx;

# An nginx instance for one test file, and what belongs to it.  The client's
# functions, which are exported too, are described in Test::Nginx::HTTP and
# Test::Nginx::Burst, port() in Test::Nginx::Ports, now() in
# Test::Nginx::Process.
#
#   use Test::More;
#   use FindBin; use lib "$FindBin::Bin/lib";
#   use Test::Nginx;
#
#   my $t = Test::Nginx->new()->has(qw/http proxy upstream_zone/)->plan(3);
#   $t->write_file_expand('nginx.conf', <<'EOF');   # %%TEST_GLOBALS%% ...
#   $t->run();
#   is(http_get('/')->status, 200, 'request');
#
# Environment:
#   TEST_NGINX_BINARY   nginx to run (default: ../build/nginx-1.28/nginx
#                       beside the project)
#   TEST_NGINX_MODULE   .so of the project's module; without it
#                       has('module') skips the file
#   TEST_NGINX_VERBOSE  1: show requests and replies, log at level debug
#   TEST_NGINX_LOG_LEVEL  level of the error log, where the test names none
#   TEST_NGINX_LEAVE    1: keep the directory of the test
#   TEST_NGINX_UNSAFE   1: has('unsafe') lets long or dangerous files run
#   TEST_NGINX_TIMEOUT  seconds that a file may take (default 120)
#   TEST_NGINX_TMPDIR   where to make it (default: the system's)
#   TEST_NGINX_GLOBALS, TEST_NGINX_GLOBALS_HTTP, TEST_NGINX_GLOBALS_STREAM
#                       configuration to add at these levels
#
# Instance:
#   new(%opt)           timeout => seconds for the whole file,
#                       log_level => 'info'
#   has(@names)         skips the file unless nginx can do all that; names are
#                       those of nginx's modules without "http_" and "_module"
#                       where that is clear (http, proxy, upstream_zone,
#                       upstream_random, ssl, v2, stub_status, stream,
#                       stream_ssl, ...), and resolve, sid, sticky, debug,
#                       lua, module, unix, ipv6, root, wrk, unsafe
#   has_version($v)     true when nginx is that version or later
#   has_module_built($n)  as has(), but answers true or false
#   plan($n)            plan of $n tests and those of Test::Nginx::Verdict
#   done_testing        for files without a plan
#   testdir             directory of the test, removed at its end
#   write_file($name, $text), read_file($name)
#   write_file_expand($name, $text, %holes)
#   expand($text, %holes)  replaces %%TEST_GLOBALS%%, %%TEST_GLOBALS_HTTP%%,
#                       %%TEST_GLOBALS_STREAM%%, %%TESTDIR%%, %%PORT_8080%%,
#                       %%NAME%% for each of %holes, and logical ports
#   logical($text)      real ports -> logical ones
#   test_config($text, %holes)  "nginx -t": (exit code, output); does not
#                       touch the error log of the instance
#   allow_log($re)      these lines of the error log are expected
#   grep_log($re, $mark), find_in_log($re, $seconds, $mark), log_mark()
#                       lines; first line, waited for, or undef; position
#   wait_for($code, $seconds, $what)  polls; returns the value, or fails a
#                       test named $what if the condition never held (only
#                       then does it count as a test) and returns nothing
#   run_daemon($code, @args)  runs it in a process; pid.  Sockets that the
#                       daemon shall use must be among @args
#   watch_group($pid)   processes of its process group must be gone at the end
#   waitforsocket($address, $seconds)  true once something accepts there
#   backend($listen, %behaviour)  a Test::Nginx::Daemon
#   load(%how)          a Test::Nginx::Load
#   wrk(%how)           result of wrk
#   leak_keys($uri, $port, %allow)  declares the status location, and takes
#                       the baseline now or at run(); see Test::Nginx::Leaks
#   leak_baseline       takes it again, e.g. after a reload that changed zones
# and those of Test::Nginx::Server: run, reload, stop, signal, workers,
# kill_worker, pid.

use v5.36;

use Cwd qw/abs_path/;
use Exporter qw/import/;
use File::Basename qw/dirname/;
use File::Spec;
use File::Temp qw/tempdir/;
use Test::More ();

use parent 'Test::Nginx::Server';

use Test::Nginx::Binary;
use Test::Nginx::Burst qw/burst/;
use Test::Nginx::Daemon;
use Test::Nginx::HTTP qw/
	http http_request http_get http_head http_post get_json control
	http_start http_finish
/;
use Test::Nginx::Leaks;
use Test::Nginx::Load;
use Test::Nginx::Log;
use Test::Nginx::Ports qw/port expand_ports logical_ports/;
use Test::Nginx::Process
	qw/now wait_until spawn alive reap end_process group/;
use Test::Nginx::Verdict;

our @EXPORT = qw/
	port http http_request http_get http_head http_post get_json control
	http_start http_finish burst now
/;

use constant TIMEOUT => 120;

# Temporary directories that nginx would otherwise look for under its prefix.
my %TEMP_PATH = (
	proxy => 'proxy_temp_path', fastcgi => 'fastcgi_temp_path',
	uwsgi => 'uwsgi_temp_path', scgi => 'scgi_temp_path',
);

sub new ($class, %opt) {
	my $default = dirname(abs_path(__FILE__))
		. '/../../../../build/nginx-1.28/nginx';
	my $dir = tempdir(
		'nginx-test-XXXXXXXXXX', CLEANUP => !$ENV{TEST_NGINX_LEAVE},
		DIR => $ENV{TEST_NGINX_TMPDIR} || File::Spec->tmpdir(),
	);

	Test::More::diag("test directory: $dir") if $ENV{TEST_NGINX_LEAVE};

	my $self = bless {
		dir => $dir, daemons => [], loads => [], backends => [],
		binary => Test::Nginx::Binary->new($ENV{TEST_NGINX_BINARY} || $default),
		log => Test::Nginx::Log->new("$dir/error.log"),
		log_level => $opt{log_level}
			// $ENV{TEST_NGINX_LOG_LEVEL}
			// ($ENV{TEST_NGINX_VERBOSE} ? 'debug' : 'info'),
		timeout => $ENV{TEST_NGINX_TIMEOUT} || $opt{timeout} || TIMEOUT,
		problems => { map { $_ => [] } qw/deaths processes leaks/ },
		Test::Nginx::Server::initial(),
	}, $class;

	$SIG{PIPE} = 'IGNORE';
	Test::Nginx::Verdict::deadline($self->{timeout});
	Test::Nginx::Verdict::watch($self);

	return $self;
}

sub has ($self, @names) {
	for my $name (@names) {
		my $reason = $self->{binary}->lacks($name) // next;
		Test::More::plan(skip_all => $reason);
	}

	return $self;
}

sub has_version ($self, $version) {
	return $self->{binary}->has_version($version);
}

sub has_module_built ($self, $name) {
	return !defined $self->{binary}->lacks($name);
}

sub binary ($self) { return $self->{binary} }

sub plan ($self, $tests) {
	Test::More::plan(tests => $tests + Test::Nginx::Verdict::COUNT);
	Test::Nginx::Verdict::planned();

	return $self;
}

sub done_testing ($self) {
	Test::Nginx::Verdict::planned();
	Test::Nginx::Verdict::conclude();
	Test::More::done_testing();
}

sub testdir ($self) { return $self->{dir} }

sub log ($self) { return $self->{log} }

sub write_file ($self, $name, $text) {
	open my $fh, '>:raw', "$self->{dir}/$name"
		or die "cannot write \"$name\": $!\n";
	print {$fh} $text;
	close $fh or die "cannot write \"$name\": $!\n";

	return $self;
}

sub read_file ($self, $name) {
	open my $fh, '<:raw', "$self->{dir}/$name"
		or die "cannot read \"$name\": $!\n";
	local $/;
	return scalar <$fh>;
}

sub write_file_expand ($self, $name, $text, %holes) {
	return $self->write_file($name, $self->expand($text, %holes));
}

sub expand ($self, $text, %holes) {
	%holes = (
		TEST_GLOBALS => $self->_globals('nginx.pid', 'error.log'),
		TEST_GLOBALS_HTTP => $self->_globals_http(),
		TEST_GLOBALS_STREAM => $ENV{TEST_NGINX_GLOBALS_STREAM} // '',
		%holes,
	);

	$text =~ s/%%(\w+)%%/$holes{$1} \/\/ "%%$1%%"/eg;
	$text =~ s/%%TESTDIR%%/$self->{dir}/g;
	$text = expand_ports($text);

	die "nothing to put into \"$1\"\n" if $text =~ /(%%\w+%%)/;

	return $text;
}

sub logical ($self, $text) { return logical_ports($text) }

sub test_config ($self, $text, %holes) {
	my $dir = $self->{dir};
	my $serial = ++$self->{configs};

	$self->write_file("check-$serial.conf", $self->expand(
		$text, TEST_GLOBALS => $self->_globals('check.pid', 'check.log'),
		%holes,
	));

	my $out = "$dir/check-$serial.out";
	my $pid = spawn(
		out => $out, group => 1, seconds => 60,
		env => $self->sanitizer_options(),
		exec => [
			$self->{binary}->path(), '-t', '-p', "$dir/",
			'-c', "check-$serial.conf", '-e', 'check.log',
		],
	);

	wait_until(sub { !alive($pid) }, 30)
		or die "\"nginx -t\" did not end: ", end_process($pid), "\n";

	my $status = reap($pid);
	my $code = $status & 127 ? 128 + ($status & 127) : $status >> 8;

	return ($code, $self->read_file("check-$serial.out"));
}

sub allow_log ($self, $re) {
	$self->{log}->allow($re);
	return $self;
}

sub log_mark ($self) { return $self->{log}->mark() }

sub grep_log ($self, $re, $mark = 0) {
	return $self->{log}->lines($re, $mark);
}

sub find_in_log ($self, $re, $seconds = 5, $mark = 0) {
	return $self->{log}->wait_line($re, $seconds, $mark);
}

sub wait_for ($self, $code, $seconds = 5, $what = 'condition') {
	my $got = wait_until($code, $seconds);
	return $got if $got;

	Test::More::fail("waited $seconds s for: $what");
	return;
}

sub run_daemon ($self, $code, @args) {
	my $pid = spawn(
		seconds => $self->{timeout}, keep => [ grep { ref && fileno $_ }
			grep { ref eq 'GLOB' || eval { $_->can('fileno') } } @args ],
		run => sub { $code->(@args) },
	);
	push @{ $self->{daemons} }, $pid;

	return $pid;
}

sub stop_daemons ($self) {
	end_process($_) for splice @{ $self->{daemons} };
	$_->stop() for @{ $self->{backends} };
}

# None of a group's processes may be left at the end.
sub watch_group ($self, $leader) { push @{ $self->{masters} }, $leader }

sub waitforsocket ($self, $address, $seconds = 10) {
	my %to;

	if ($address =~ /\Aunix:(.*)\z/) {
		%to = (socket => $1);
	}
	else {
		@to{qw/host port/} = $address =~ /\A(.*):(\d+)\z/
			or die "waitforsocket: bad address \"$address\"\n";
	}

	return !!wait_until(sub {
		my $s = Test::Nginx::HTTP::dial(%to) or return 0;
		my $w = '';
		vec($w, fileno $s, 1) = 1;
		return select(undef, $w, undef, 1) > 0
			&& Test::Nginx::HTTP::connect_error($s) eq '';
	}, $seconds);
}

sub backend ($self, $listen, %behaviour) {
	my $backend = Test::Nginx::Daemon->start(
		dir => $self->{dir}, listen => $self->expand($listen),
		seconds => $self->{timeout}, %behaviour,
	);
	push @{ $self->{backends} }, $backend;

	return $backend;
}

sub load ($self, %how) {
	my $load = Test::Nginx::Load->start(dir => $self->{dir}, %how);
	push @{ $self->{loads} }, $load;

	return $load;
}

sub wrk ($self, %how) {
	return Test::Nginx::Load::wrk(dir => $self->{dir}, %how);
}

sub leak_keys ($self, $uri, $port = 8080, %allow) {
	my $leaks = Test::Nginx::Leaks->new(uri => $uri, port => $port, %allow);
	$leaks->baseline() if $self->{master};
	$self->{leaks} = $leaks;

	return $self;
}

sub leak_baseline ($self) { $self->{leaks}->baseline() }

# What is wrong at the end, by kind; ends everything.
sub conclude ($self) {
	my $problems = $self->{problems};

	end_process($_) for map { $_->pids() } @{ $self->{loads} };

	$self->stop(daemons => 1) if $self->{master};
	$self->stop_daemons();

	push @{ $problems->{processes} },
		map { "process $_ is left" } grep { alive($_) } $self->pids();

	return {
		%$problems,
		log => [ $self->{log}->complaints() ],
		deaths => [ @{ $problems->{deaths} }, $self->{log}->deaths() ],
		panics => [ $self->{log}->panics(), $self->_sanitizer_reports() ],
	};
}

# All that may still run: for the last resort.
sub pids ($self) {
	return grep { $_ } $self->{daemons}->@*,
		(map { $_->pid() } $self->{backends}->@*),
		(map { $_->pids() } $self->{loads}->@*),
		map { group($_) } $self->{masters}->@*;
}

sub _sanitizer_reports ($self) {
	return map {
		open my $fh, '<', $_ or die "$_: $!\n";
		grep { /ERROR|WARNING|SUMMARY|runtime error/ } <$fh>;
	} glob "$self->{dir}/sanitizer.*";
}

sub _globals ($self, $pid, $log) {
	my @lines = (
		'daemon off;',
		"pid $self->{dir}/$pid;",
		"error_log $self->{dir}/$log $self->{log_level};",
	);

	# Workers must be able to reach the directory of the test.
	push @lines, 'user root;' if $> == 0;
	push @lines, map { "load_module $_;" } $self->{binary}->load_modules();

	if (my $module = $ENV{TEST_NGINX_MODULE}) {
		push @lines, 'load_module ' . (abs_path($module) // $module) . ';';
	}

	return join "\n", @lines, $ENV{TEST_NGINX_GLOBALS} // ();
}

sub _globals_http ($self) {
	my $dir = $self->{dir};
	my @lines = (
		"root $dir;",
		"access_log $dir/access.log;",
		"client_body_temp_path $dir/client_body_temp;",
	);

	push @lines, map { "$TEMP_PATH{$_} $dir/${_}_temp;" }
		grep { $self->has_module_built($_) } sort keys %TEMP_PATH;

	return join "\n", @lines, $ENV{TEST_NGINX_GLOBALS_HTTP} // ();
}

1;

package Bench::Row::Change;

# Processor time of the worker for one change, beside that for the least that
# nginx can do: a `return 200` by the same worker over the same kind of
# connection.

use v5.36;

use Test::Nginx;

use Bench::Callgrind;
use Bench::Pairs qw/pairs/;

use constant SERVERS => 10;

# Of one measurement; each server is taken down and up again equally often.
use constant REQUESTS => 25 * 2 * SERVERS;

my $CONF = <<'CONF';
%%TEST_GLOBALS%%
%%MAIN%%
events { worker_connections 1024; }
http {
    %%TEST_GLOBALS_HTTP%%
    access_log off;
    keepalive_requests 100000000;

    upstream many {
        zone many 256k;
%%SERVERS%%
    }

    server {
        listen 127.0.0.1:8080;
        location = /control { upstream_control; }
        location = /status { upstream_status; }
        location = /return { return 200; }
    }
}
CONF

# Nobody listens there, since nobody asks.
my @PORTS = map { 8100 + $_ } 1 .. SERVERS;

sub run ($class, $session) {
	my $what = '`upstream_control?upstream=..&server=..&down=` and `&up=` in '
		. 'turns / `return 200`';
	my %cpu = (
		name => 'worker CPU of a change, ' . SERVERS . ' servers',
		goal => '<= 1.3', unit => 'us', digits => 2,
		how => "$what, by the same worker: one kept-alive connection, one "
			. 'request at a time, ' . REQUESTS . ' requests a measurement, '
			. 'error_log at level error. `bench/run.pl change`',
	);
	my %instructions = (
		name => 'instructions of a change, ' . SERVERS . ' servers',
		unit => '', how => "$what, counted as for the proxied request, but "
			. 'with malloc() and free(). What the kernel does for either is '
			. 'left out here. `bench/run.pl change`',
	);
	return map { +{ %$_, missing => 'needs the module' } }
		\%cpu, \%instructions if $session->null();

	return { %cpu, ratio => _cpu($session) },
		{ %instructions, _instructions($session) };
}

sub _cpu ($session) {
	my $nginx = _nginx($session, main => 'worker_processes 1;');
	$session->start($nginx);

	my $got = pairs(
		one => sub {
			my $before = _revision();
			my $cpu = _measure($session, $nginx, \&_change);
			die "some changes have changed nothing\n"
				unless _revision() == $before + REQUESTS;
			return $cpu;
		},
		other => sub { _measure($session, $nginx, '/return') },
		key => 'cpu', least => 40, most => 200, within => 0.01, seconds => 40,
		each => sub ($n) { $session->calm() unless $n % 10 },
	);

	$session->stop($nginx);

	return $got->{cpu};
}

sub _instructions ($session) {
	my $callgrind = Bench::Callgrind->new($session)
		or return (missing => 'needs valgrind');
	my $nginx = _nginx(
		$session, main => 'master_process off;',
		binary => $callgrind->program(),
	);
	my %uri = (change => \&_change, return => '/return');
	my $measure = sub ($name) {
		return $callgrind->per_request(
			$nginx, keep => $name, uri => $uri{$name},
		);
	};

	my $got = pairs(
		one => sub { $measure->('change') },
		other => sub { $measure->('return') },
		key => 'all', least => 2, most => 2,
	);

	return (ratio => $got->{all});
}

sub _nginx ($session, %how) {
	my $servers = join "\n", map { "        server 127.0.0.1:$_;" } @PORTS;

	return $session->nginx(
		%how, module => 1, conf => $CONF,
		holes => { SERVERS => $servers, MAIN => $how{main} },
	);
}

# Down and up of one server after the other.
sub _change ($n) {
	my $server = '127.0.0.1:' . port($PORTS[$n / 2 % @PORTS]);
	my $verb = $n % 2 ? 'up' : 'down';
	return "/control?upstream=many&server=$server&$verb=";
}

sub _revision () {
	my $all = get_json('/status', headers => { Accept => 'application/json' });
	return $all->{upstreams}{many}{revision};
}

sub _measure ($session, $nginx, $uri) {
	my ($worker) = $nginx->workers();
	my $before = $session->cpu($worker);
	my $got = burst(n => REQUESTS, concurrency => 1, keepalive => 1,
		records => 0, uri => $uri);
	my $cpu = $session->cpu($worker) - $before;

	die "requests have failed\n" if $got->{ok} != REQUESTS;

	return { cpu => $cpu / REQUESTS / 1000 };
}

1;

package Bench::Row::Members;

# What it costs to remove a server and to add it again, among ten thousand
# servers and among ten: as a client sees it, and in processor time of the
# worker.

use v5.36;

use IO::Socket::INET;
use Time::HiRes qw/clock_gettime CLOCK_MONOTONIC/;

use Test::Nginx;

use Bench::Pairs qw/pairs/;

# Name of the upstream and number of its servers.
use constant { MANY => 10_000, FEW => 10 };

# Of one measurement: each server that leaves comes back.
use constant REQUESTS => 400;

# From one server that leaves to the next: prime to both numbers, so that each
# has its turn, far from the one before.
use constant STEP => 3_331;

my $CONF = <<'CONF';
%%TEST_GLOBALS%%
worker_processes 1;
events { worker_connections 1024; }
http {
    %%TEST_GLOBALS_HTTP%%
    access_log off;
    keepalive_requests 100000000;

    upstream many {
        zone many 32m;
%%MANY%%
    }

    upstream few {
        zone few 32m;
%%FEW%%
    }

    server {
        listen 127.0.0.1:8080;
        location = /control { upstream_control; }
        location = /status { upstream_status; }
    }
}
CONF

sub run ($class, $session) {
	my $what = 'a server is removed, and added again (`upstream_control?'
		. 'upstream=..&remove=&brief=&server=..`, `&add=`), each one in its '
		. 'turn, of round robin upstreams of ' . MANY . ' / ' . FEW
		. ' servers, by the same worker';
	my %time = (
		name => 'time of add and remove, ' . MANY . ' servers / ' . FEW,
		goal => '<= 1.5', unit => 'us', digits => 2,
		how => "$what: from the sending of a request to the end of its reply, "
			. 'over one kept-alive connection, ' . REQUESTS . ' requests a '
			. 'measurement, error_log at level error. `bench/run.pl members`',
	);
	my %cpu = (
		name => 'worker CPU of add and remove, ' . MANY . ' servers / ' . FEW,
		goal => '<= 2', unit => 'us', digits => 2,
		how => 'in the same measurements, processor time of the worker '
			. '(`/proc/PID/schedstat`) by requests',
	);
	return map { +{ %$_, missing => 'needs the module' } } \%time, \%cpu
		if $session->null();

	my $got = _measure($session);
	return { %time, ratio => $got->{time} }, { %cpu, ratio => $got->{cpu} };
}

sub _measure ($session) {
	my $nginx = $session->nginx(
		module => 1, conf => $CONF, holes => {
			MANY => _block(MANY), FEW => _block(FEW),
		},
	);
	$session->start($nginx);

	my $socket = IO::Socket::INET->new(
		PeerAddr => '127.0.0.1:' . port(8080), Proto => 'tcp',
	) or die "cannot connect: $@\n";
	my ($worker) = $nginx->workers();
	my %turn = (many => 0, few => 0);

	my $side = sub ($name, $servers) {
		# What the processor's caches hold belongs to the other side.
		_exchange($socket, $name, $servers, $turn{$name}++) for 1 .. 5;

		my $cpu = $session->cpu($worker);
		my $time = 0;
		$time += _exchange($socket, $name, $servers, $turn{$name}++)
			for 1 .. REQUESTS / 2;
		$cpu = $session->cpu($worker) - $cpu;

		return {
			cpu => $cpu / REQUESTS / 1000, time => $time / REQUESTS * 1e6,
		};
	};

	my $got = pairs(
		one => sub { $side->('many', MANY) },
		other => sub { $side->('few', FEW) },
		key => 'cpu', least => 20, most => 100, within => 0.02, seconds => 40,
		each => sub ($n) { $session->calm() unless $n % 10 },
	);

	for my $name (sort keys %turn) {
		my $revision = _status($name)->{revision};
		die "some changes have changed nothing\n"
			unless $revision == 2 * $turn{$name};
	}

	close $socket;
	$session->stop($nginx);

	return $got;
}

# One server leaves and comes back; the time that both take.
sub _exchange ($socket, $name, $servers, $turn) {
	my $server = _server($turn * STEP % $servers);

	return _ask($socket, "upstream=$name&remove=&brief=&server=$server")
		+ _ask($socket, "upstream=$name&add=&brief=&server=$server");
}

sub _ask ($socket, $args) {
	my $request = "GET /control?$args HTTP/1.1\r\nHost: localhost\r\n\r\n";
	my $reply = '';
	my $began = clock_gettime(CLOCK_MONOTONIC);

	syswrite $socket, $request;
	while ($reply !~ /\r\n\r\n.*\n\z/s) {
		sysread $socket, $reply, 4096, length $reply
			or die "the connection was closed\n";
	}
	my $took = clock_gettime(CLOCK_MONOTONIC) - $began;

	die "a request has failed: $reply\n" unless $reply =~ m{\AHTTP/1.1 200 };

	return $took;
}

sub _status ($name) {
	my $all = get_json("/status?upstream=$name",
		headers => { Accept => 'application/json' });
	return $all->{upstreams}{$name};
}

sub _block ($servers) {
	return join "\n", map { '        server ' . _server($_) . ';' }
		0 .. $servers - 1;
}

# Nobody listens there, since nobody asks.
sub _server ($n) {
	return sprintf '10.0.%d.%d:80', $n / 250, $n % 250;
}

1;

package Bench::Row::Workers;

# What more workers bring: proxied requests per second, and changes per second,
# of two and of four workers beside one.

use v5.36;

use Test::Nginx;

use Bench::Pairs qw/pairs/;
use Bench::Proxied;

# Of one measurement.
use constant SECONDS => 1;

# Of wrk: that asks for the proxied page, and that changes servers.
use constant { CONNECTIONS => 32, CHANGERS => 8 };

use constant SERVERS => 10;

# Numbers of workers, and where the nginx with so many listens.
my %PORT = (1 => 8010, 2 => 8020, 4 => 8030);

my $CONF = <<'CONF';
%%TEST_GLOBALS%%
worker_processes %%WORKERS%%;
events { worker_connections 1024; }
http {
    %%TEST_GLOBALS_HTTP%%
    access_log off;
    keepalive_requests 100000000;

    upstream backend {
        zone backend 256k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        server 127.0.0.1:8083;
        server 127.0.0.1:8084;
        keepalive 64;
        keepalive_requests 100000000;
    }

    upstream many {
        zone many 256k;
%%SERVERS%%
    }

    server {
        # Each worker gets its part of the connections.
        listen 127.0.0.1:%%PORT%% reuseport;

        location / {
            proxy_pass http://backend;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }

        location = /control { upstream_control; }
        location = /status { upstream_status; }
    }
}
CONF

# Each server in its turn, and with another weight each time it has its turn.
my $SCRIPT = <<'LUA';
local n = 0
function request()
    local server = n % %%SERVERS%%
    local weight = 1 + math.floor(n / %%SERVERS%%) % 60000
    n = n + 1
    return wrk.format("GET", "/control?upstream=many&brief=&peer=" .. server
        .. "&weight=" .. weight)
end
LUA

sub run ($class, $session) {
	my $shared = 'wrk and the backend share the '
		. 'processors of the machine with the workers, so that on two cores '
		. 'more workers than one find no processor of their own';
	my @rows = map { ({
		name => "proxied requests per second, $_ workers / 1", of => $_,
		measure => \&_proxied, unit => '/s', digits => 0,
		how => "nginx with $_ workers / with one, both with the module, "
			. 'in front of another nginx with one worker: four servers, round '
			. 'robin, replies of 3 bytes; wrk with ' . CONNECTIONS
			. ' connections for ' . SECONDS . " s. $shared. "
			. '`bench/run.pl workers`',
	}, {
		name => "changes per second, $_ workers / 1", of => $_,
		measure => \&_changes, unit => '/s', digits => 0,
		how => "`upstream_control?upstream=..&brief=&peer=..&weight=..` by $_ "
			. 'workers / by one: wrk with ' . CHANGERS . ' kept-alive '
			. 'connections for ' . SECONDS . ' s, all of them changing the '
			. 'same upstream of ' . SERVERS . ' servers, each server in its '
			. 'turn; what is counted is the revision of the upstream. Changes '
			. "of one upstream exclude each other, and $shared. "
			. '`bench/run.pl workers`',
	}) } 2, 4;
	return map { +{ %$_, missing => 'needs the module' } } @rows
		if $session->null();

	my $backend = Bench::Proxied::backend($session);
	my %nginx = map { $_ => _nginx($session, $_) } keys %PORT;
	$session->start(values %nginx);
	_warm($_) for sort keys %nginx;
	$session->calm();

	$_->{ratio} = _pairs(\%nginx, $_->@{qw/of measure/}) for @rows;

	$session->stop(values %nginx, $backend);

	return @rows;
}

sub _pairs ($nginx, $workers, $measure) {
	return pairs(
		one => sub { $measure->($nginx->{$workers}, $workers) },
		other => sub { $measure->($nginx->{1}, 1) },
		key => 'rate', least => 6, most => 8, within => 0.02, seconds => 14,
	)->{rate};
}

sub _nginx ($session, $workers) {
	my $servers = join "\n", map { "        server 127.0.0.1:$_;" }
		map { 8100 + $_ } 1 .. SERVERS;

	my $nginx = $session->nginx(
		module => 1, conf => $CONF, holes => {
			WORKERS => $workers, PORT => $PORT{$workers}, SERVERS => $servers,
		},
	);

	return $nginx->write_file_expand('changes.lua', $SCRIPT,
		SERVERS => SERVERS);
}

# Connections to the servers are there, and memory has been touched.
sub _warm ($workers) {
	burst(n => 500, concurrency => CONNECTIONS, keepalive => 1, records => 0,
		port => $PORT{$workers});
	die "the module does not control the upstreams\n"
		if grep { !$_->{dynamic} } values _status($workers)->%*;
}

sub _status ($workers) {
	return get_json('/status?format=json', port => $PORT{$workers})
		->{upstreams};
}

sub _proxied ($nginx, $workers) {
	my $got = _wrk($nginx, $workers, connections => CONNECTIONS);

	return { rate => $got->{per_second} };
}

sub _changes ($nginx, $workers) {
	my $before = _status($workers)->{many}{revision};
	my $got = _wrk($nginx, $workers, connections => CHANGERS,
		script => $nginx->testdir() . '/changes.lua');
	my $changes = _status($workers)->{many}{revision} - $before;

	# wrk leaves requests under way at its end, and two of one server may come
	# in the other order.
	die "some changes have changed nothing\n"
		if $changes < 0.9 * $got->{total};

	return { rate => $changes * $got->{per_second} / $got->{total} };
}

sub _wrk ($nginx, $workers, %how) {
	my $got = $nginx->wrk(
		%how, seconds => SECONDS, threads => 1, port => $PORT{$workers},
	);
	die "requests have failed:\n$got->{text}\n"
		if $got->{failed} || !$got->{total};

	return $got;
}

1;

package Bench::Row::Pools;

# Proxied requests per second through an upstream of two pools, and straight to
# the first of these; the worker's processor time and the instructions for each.

use v5.36;

use Test::Nginx;

use Bench::Callgrind;
use Bench::Pairs qw/pairs/;
use Bench::Proxied;

# See Bench::Row::Proxy.
use constant SECONDS => 1;

use constant CONNECTIONS => 32;

my $UPSTREAMS = <<'CONF';
    upstream app {
        pool backend;
        pool spare priority=1;
    }

    upstream spare {
        zone spare 256k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        keepalive 64;
    }

CONF

sub run ($class, $session) {
	my $backend = Bench::Proxied::backend($session);
	# Both in one process, so that they differ in nothing else.
	my $front = _front($session);
	$session->start($front);
	Bench::Proxied::check($session, $front);
	burst(n => 500, concurrency => CONNECTIONS, keepalive => 1, records => 0,
		uri => $_, port => Bench::Proxied::front_port(1)) for qw{/ /pools};

	my $measure = sub ($uri) {
		return Bench::Proxied::measure($session, $front, 1, uri => $uri,
			seconds => SECONDS, connections => CONNECTIONS);
	};
	my $got = pairs(
		one => sub { $measure->('/pools') },
		other => sub { $measure->('/') },
		key => 'rate', least => 16, most => 40, within => 0.005,
		seconds => 60, each => sub { $session->calm() },
	);

	$session->stop($front);
	my %instructions = _instructions($session);
	$session->stop($backend);

	return {
		name => 'proxied requests per second, through pools',
		goal => '>= 0.97', ratio => $got->{rate}, unit => '/s',
		how => 'as in the first row, through an upstream of two pools / '
			. 'straight to the first of them, which is well; one worker, '
			. 'the same process for both. `bench/run.pl pools`',
	}, {
		name => 'worker CPU of a proxied request, through pools',
		ratio => $got->{cpu}, unit => 'us', digits => 2,
		how => 'in the same measurements',
	}, {
		name => 'instructions of a proxied request, through pools',
		unit => '', how => 'counted as for the proxied request', %instructions,
	};
}

sub _front ($session, %how) {
	my $app = $session->null() ? 'backend' : 'app';
	return Bench::Proxied::front($session, 1, %how,
		upstreams => $session->null() ? '' : $UPSTREAMS,
		locations => "location = /pools { proxy_pass http://$app; }",
	);
}

sub _instructions ($session) {
	my $callgrind = Bench::Callgrind->new($session)
		or return (missing => 'needs valgrind');
	my $front = _front($session, binary => $callgrind->program(),
		main => 'master_process off;');
	my $measure = sub ($name, $uri) {
		return $callgrind->per_request($front, keep => $name, uri => $uri,
			port => Bench::Proxied::front_port(1));
	};
	my $got = pairs(
		one => sub { $measure->('pools', '/pools') },
		other => sub { $measure->('direct', '/') },
		key => 'plain', least => 2, most => 2,
	);
	return (ratio => $got->{plain});
}

1;

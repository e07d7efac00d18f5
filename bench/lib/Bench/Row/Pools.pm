package Bench::Row::Pools;

# Proxied requests per second through an upstream of two pools, and straight to
# the first of these; and the worker's processor time for each.

use v5.36;

use Test::Nginx;

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
	my $front = Bench::Proxied::front($session, 1,
		upstreams => $session->null() ? '' : $UPSTREAMS,
		locations => 'location = /pools { proxy_pass http://'
			. ($session->null() ? 'backend' : 'app') . '; }',
	);
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

	$session->stop($front, $backend);

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
	};
}

1;

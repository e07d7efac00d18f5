package Bench::Row::Proxy;

# Proxied requests per second with the module riding along, and without; and
# the worker's processor time for each request, from the same measurements,
# which other programs on the machine disturb less.

use v5.36;

use Test::Nginx;

use Bench::Pairs qw/pairs/;
use Bench::Proxied;

# Of one measurement: what disturbs comes and goes within seconds, so that many
# short pairs say more than a few long ones.
use constant SECONDS => 1;

use constant CONNECTIONS => 32;

my %HOW = (seconds => SECONDS, connections => CONNECTIONS);

sub run ($class, $session) {
	my $backend = Bench::Proxied::backend($session);
	my %front = map { $_ => Bench::Proxied::front($session, $_) } 0, 1;

	# The same program in another process, elsewhere in memory, is some
	# percents faster or slower: each pair gets new ones.
	my $renew = sub ($n) {
		$session->stop(values %front) if $n;
		$session->start(@front{ $n % 2 ? (1, 0) : (0, 1) });
		Bench::Proxied::check($session, $front{1}) unless $n;
		_warm($_) for 0, 1;
		$session->calm();
	};

	my $got = pairs(
		one => sub { Bench::Proxied::measure($session, $front{1}, 1, %HOW) },
		other => sub { Bench::Proxied::measure($session, $front{0}, 0, %HOW) },
		key => 'rate', least => 16, most => 40, within => 0.005,
		seconds => 90, each => $renew,
	);

	$session->stop(values %front, $backend);

	my $how = 'nginx with one worker in front of another nginx, with the '
		. 'module loaded and controlling the upstream / without: four '
		. 'servers, round robin, kept-alive connections on both sides, '
		. 'replies of 3 bytes, no access log; wrk with ' . CONNECTIONS
		. ' connections for ' . SECONDS . ' s; new processes for each pair. '
		. '`bench/run.pl proxy`';

	return {
		name => 'proxied requests per second', goal => '>= 0.98',
		ratio => $got->{rate}, unit => '/s', how => $how,
	}, {
		name => 'worker CPU of a proxied request', ratio => $got->{cpu},
		unit => 'us', digits => 2, how => 'in the same measurements, '
			. 'processor time of the worker (`/proc/PID/schedstat`) by '
			. 'requests',
	};
}

# Connections to the servers are there, and memory has been touched.
sub _warm ($with) {
	burst(n => 500, concurrency => CONNECTIONS, keepalive => 1, records => 0,
		port => Bench::Proxied::front_port($with));
}

1;

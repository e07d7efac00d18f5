package Bench::Row::Status;

# The status of very many servers: how fast one worker sends it to a client that
# takes all it gets, and what proxied requests of the same worker feel of that.

use v5.36;

use Test::Nginx;
use Test::Nginx::HTTP qw/dial format_request/;
use Test::Nginx::Process qw/spawn end_process/;

use Bench::Pairs qw/pairs summary/;
use Bench::Proxied;

use constant SERVERS => 10_000;

# Statuses of one measurement of the rate.
use constant STATUSES => 20;

# Proxied requests of one measurement of the delay.
use constant REQUESTS => 400;

# The goals: of the rate, in MB/s, and of the delay, in milliseconds.
use constant RATE => 200;
use constant DELAY => 10;

my $CONF = <<'CONF';
%%TEST_GLOBALS%%
worker_processes 1;
events { worker_connections 1024; }
http {
    %%TEST_GLOBALS_HTTP%%
    access_log off;
    keepalive_requests 100000000;

    upstream many {
        zone many 16m;
%%SERVERS%%
    }

    upstream backend {
        zone backend 256k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        keepalive 64;
        keepalive_requests 100000000;
    }

    server {
        listen 127.0.0.1:8080;
        location = /status { upstream_status; }
        location = /file { default_type application/json; }
        location = /proxied {
            proxy_pass http://backend/;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }
    }
}
CONF

my $STATUS = '/status?upstream=many&format=json';

sub run ($class, $session) {
	my $repeat = '`bench/run.pl status`';
	my $what = 'JSON of ' . SERVERS . ' servers';
	my @rows = ({
		name => "status, $what", goal => '>= 1', unit => 'MB/s',
		digits => 0, how => "bytes a second that one client gets of the $what "
			. 'from one worker / ' . RATE . ' MB/s: ' . STATUSES
			. ' requests a measurement, one after the other over one connection. '
			. $repeat,
	}, {
		name => 'the same beside a file', unit => 'MB/s', digits => 0,
		how => 'in turns with the same measurement of a file of the same '
			. 'bytes, sent by the same worker',
	}, {
		name => 'the same by processor time', unit => 'MB/s', digits => 0,
		how => 'in the same measurements, bytes a second of the worker\'s '
			. 'processor time (`/proc/PID/schedstat`)',
	}, {
		name => 'worst delay of a proxied request meanwhile', goal => '<= 1',
		unit => 'ms', digits => 2, how => 'the longest of ' . REQUESTS
			. ' proxied requests, one at a time, less their median, while '
			. 'another client reads one such status after the other from '
			. 'the same worker / ' . DELAY . " ms. $repeat",
	}, {
		name => 'the same beside nothing', unit => 'ms', digits => 2,
		how => 'in turns with the same measurement without the other client: '
			. 'what the machine itself delays',
	}, {
		name => 'median time of a proxied request meanwhile', unit => 'ms',
		digits => 2, how => 'in the same measurements',
	});
	return map { +{ %$_, missing => 'needs the module' } } @rows
		if $session->null();

	my $backend = Bench::Proxied::backend($session);
	my $nginx = $session->nginx(module => 1, conf => $CONF,
		holes => { SERVERS => _servers() });
	$session->start($nginx);
	$nginx->write_file('file', http_get($STATUS)->body());

	my @ratios = (_rate($session, $nginx->workers()), _delay($session));

	$session->stop($nginx, $backend);

	return map { +{ $rows[$_]->%*, ratio => $ratios[$_] } } 0 .. $#rows;
}

# Nobody listens there, since nobody asks.
sub _servers () {
	return join "\n", map {
		sprintf '        server 127.%d.%d.%d:9;', 1 + $_ % 7, $_ / 250,
			1 + $_ % 250;
	} 0 .. SERVERS - 1;
}

sub _rate ($session, $worker) {
	my @rates;
	my $got = pairs(
		one => sub {
			my $measured = _measure($session, $worker, $STATUS);
			push @rates, $measured->{rate};
			return $measured;
		},
		other => sub { _measure($session, $worker, '/file') },
		key => 'rate', least => 16, most => 40, within => 0.02, seconds => 40,
		each => sub ($n) { $session->calm() unless $n % 5 },
	);

	return _against(RATE, @rates), $got->@{qw/rate cpu/};
}

sub _delay ($session) {
	my @delays;
	my $got = pairs(
		one => sub {
			my $pid = _reader();
			my $measured = _proxied();
			end_process($pid);
			push @delays, $measured->{delay};
			return $measured;
		},
		other => \&_proxied,
		key => 'delay', least => 16, most => 40, within => 0.05, seconds => 40,
		each => sub ($n) { $session->calm() unless $n % 5 },
	);

	return _against(DELAY, @delays), $got->@{qw/delay median/};
}

# A process that reads one status after the other; it has read the first.
sub _reader () {
	pipe my $ready, my $done or die "pipe: $!\n";
	my $pid = spawn(seconds => 60, run => sub {
		my $s = _connection();
		_read($s, $STATUS);
		syswrite $done, 'x';
		_read($s, $STATUS) while 1;
	});
	close $done;
	sysread $ready, my $byte, 1 or die "the client of the status has died\n";

	return $pid;
}

# A number is held against a fixed one.
sub _against ($limit, @numbers) {
	return {
		summary(map { $_ / $limit } @numbers)->%*,
		one => summary(@numbers)->{median}, other => $limit,
	};
}

# Of the body's bytes; those of heads and of the lines between chunks are less
# than a thousandth.
sub _measure ($session, $worker, $uri) {
	my $s = _connection();
	# The system learns how much this client takes at once.
	_read($s, $uri) for 1 .. 3;

	my $cpu = $session->cpu($worker);
	my $begin = now();
	my $bytes = 0;
	$bytes += _read($s, $uri) for 1 .. STATUSES;
	my $seconds = now() - $begin;
	$cpu = $session->cpu($worker) - $cpu;

	return {
		rate => $bytes / $seconds / 1e6, cpu => $bytes / $cpu * 1000,
	};
}

sub _connection () {
	my $s = dial() or die "connect: $!\n";
	$s->blocking(1);

	return $s;
}

# Takes a whole reply as fast as it comes, and looks at its ends only.
sub _read ($s, $uri) {
	syswrite $s, format_request(uri => $uri, keepalive => 1);

	my ($all, $first, $last) = (0, undef, '');
	while (my $n = sysread $s, my $bytes, 1_048_576) {
		$all += $n;
		$first //= $bytes;
		$last = substr $last . substr($bytes, $n > 7 ? -7 : 0), -7;

		# The head of such a reply comes with its beginning.
		my ($length) = $first =~ /\r\nContent-Length: (\d+)\r/i;
		my $head = length $first =~ s/\r\n\r\n\K.*//sr;
		return $all if $length ? $all >= $head + $length
			: $last eq "\r\n0\r\n\r\n";
		$first = substr $first, 0, $head;
	}

	die "a reply was cut short\n";
}

sub _proxied () {
	my $got = burst(n => REQUESTS, concurrency => 1, keepalive => 1,
		uri => '/proxied');
	die "requests have failed\n" if $got->{ok} != REQUESTS;

	# The first one connects.
	my @seconds = map { $_->{ended} - $_->{started} }
		$got->{requests}->@[ 1 .. REQUESTS - 1 ];
	my $times = summary(@seconds);

	return {
		delay => 1000 * ($times->{max} - $times->{median}),
		median => 1000 * $times->{median},
	};
}

1;

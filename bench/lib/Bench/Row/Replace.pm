package Bench::Row::Replace;

# Replacing ten thousand servers by a list that differs in a hundred: how long
# the client waits, and how long proxied requests of the same worker wait
# meanwhile.

use v5.36;

use IO::Socket::INET;
use Time::HiRes qw/sleep/;

use Test::Nginx;

use Bench::Pairs qw/pairs summary/;
use Bench::Proxied;

use Test::Nginx::HTTP qw/format_request/;

use constant { SERVERS => 10_000, DIFFERENT => 100 };

# What is allowed, in milliseconds.
use constant { TIME => 30, DELAY => 10 };

my $CONF = <<'CONF';
%%TEST_GLOBALS%%
worker_processes 1;
events { worker_connections 1024; }
http {
    %%TEST_GLOBALS_HTTP%%
    access_log off;
    keepalive_requests 100000000;
    upstream_control_zone 64m;

    upstream backend {
        zone backend 256k;
        server 127.0.0.1:8081;
        keepalive 64;
        keepalive_requests 100000000;
    }

    upstream many {
        zone many 64m;
        server 127.1.0.0:80;
    }

    server {
        listen 127.0.0.1:8010;
        client_max_body_size 16m;
        client_body_buffer_size 16m;
        location = /control { upstream_control; }
        location = /status { upstream_status; }
        location / {
            proxy_pass http://backend;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }
    }
}
CONF

sub run ($class, $session) {
	my $how = SERVERS . ' servers, round robin, replaced by a list of as many, '
		. 'in nginx\'s words and in memory, that differs in '
		. DIFFERENT . ': half of these are other servers, half have another '
		. 'weight. One worker, which proxies requests of one other '
		. 'connection all the time. ';
	my %time = (
		name => 'replacing ' . SERVERS . ' by a list that differs in '
			. DIFFERENT, goal => '<= 1', unit => 'ms', digits => 1,
		how => "$how Time from the last byte of the body to the end of the "
			. 'reply / the ' . TIME . ' ms that are allowed. '
			. '`bench/run.pl replace`',
	);
	my %delay = (
		name => 'proxied requests meanwhile', goal => '<= 1', unit => 'ms',
		digits => 1, how => 'in the same measurements, the longest of the '
			. 'proxied requests that overlap, above the median of all / the '
			. DELAY . ' ms that are allowed. `bench/run.pl replace`',
	);
	return map { +{ %$_, missing => 'needs the module' } } \%time, \%delay
		if $session->null();

	my $backend = Bench::Proxied::backend($session);
	my $nginx = $session->nginx(module => 1, conf => $CONF);
	$session->start($nginx);

	my @lists = map { _list($_) } 0, 1;
	my $turn = 0;
	_replace($lists[1], 60);

	my $got = pairs(
		one => sub { _measure($nginx, $lists[$turn++ % 2]) },
		other => sub { return { time => TIME, delay => DELAY } },
		key => 'time', least => 16, most => 40, within => 0.02, seconds => 60,
		each => sub ($n) { $session->calm() unless $n % 5 },
	);

	$session->stop($nginx, $backend);

	return { %time, ratio => $got->{time} }, { %delay, ratio => $got->{delay} };
}

sub _list ($odd) {
	return join '', map {
		my $n = $_ < DIFFERENT / 2 ? $_ + $odd * SERVERS : $_;
		my $weight = $_ >= SERVERS - DIFFERENT / 2 ? 2 + $odd : 1;
		sprintf "server 127.1.%d.%d:80 weight=%d;\n", $n / 250, $n % 250, $weight;
	} 0 .. SERVERS - 1;
}

# Seconds from the last byte on, when that began, and the reply.
sub _replace ($list, $timeout = 10) {
	my $request = format_request(
		method => 'POST', uri => '/control?upstream=many&replace=',
		headers => { 'Content-Type' => 'text/plain' }, body => $list,
	);
	my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
		PeerPort => port(8010), Timeout => $timeout)
		or die "cannot connect: $!\n";
	my $last = chop $request;
	print {$s} $request;
	$s->flush();
	sleep 0.1;

	my $began = now();
	syswrite $s, $last;
	my $reply = '';
	while (1) {
		my $n = sysread $s, $reply, 65_536, length $reply;
		die "no reply\n" unless $n;
		my ($length) = $reply =~ /^Content-Length: (\d+)\r$/m or next;
		last if length $reply >= $length + 4 + index $reply, "\r\n\r\n";
	}
	my $time = now() - $began;

	return ($began, $time, $reply);
}

sub _measure ($nginx, $list) {
	my $load = $nginx->load(seconds => 60, uri => '/', port => 8010,
		concurrency => 1, keepalive => 1, records => 1);
	sleep 0.2;
	my ($began, $time, $reply) = _replace($list);
	sleep 0.05;
	my $got = $load->finish(now => 1);

	my $half = DIFFERENT / 2;
	die "not that list: $reply\n" unless $reply =~
		/$half added, $half removed, $half changed, @{[ SERVERS - DIFFERENT ]} unchanged/;
	die "requests have failed\n" if $got->{failed};

	my @all = map { $_->{ended} - $_->{started} } $got->{requests}->@*;
	my @meanwhile = map { $_->{ended} - $_->{started} }
		grep { $_->{ended} >= $began && $_->{started} <= $began + $time }
		$got->{requests}->@*;
	my $delay = summary(@meanwhile)->{max} - summary(@all)->{median};

	return { time => 1000 * $time, delay => 1000 * $delay };
}

1;

#!/usr/bin/env perl

# Tests under load: with 4 workers and 1,000 parallel requests no request that
# starts after the reply to "down" reaches the server, and after the reply to
# "up" every worker sends it traffic again.
#
# TEST_NGINX_LONG is the time in seconds; rounds go on until it is over.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

use constant ROUNDS => 20;

# Requests of one upstream that must begin between two changes of it.
use constant FEW => 50;

my $long = $ENV{TEST_NGINX_LONG} // 0;
my $timeout = 150 + 2 * $long;

my $t = Test::Nginx->new(timeout => $timeout)->has(qw/
	module http proxy upstream_zone upstream_keepalive upstream_least_conn
	upstream_random stub_status
/)->plan(7);

# The first name is the one that the documents of the control requests use.
my %balancer = (
	luaupstfoo => '', connfoo => 'least_conn;', randomfoo => 'random;',
);
my @names = sort keys %balancer;

my $upstreams = join '', map { <<"BLOCK" } @names;
    upstream $_ {
        zone $_ 64k;
        $balancer{$_}
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        server 127.0.0.1:8083;
        keepalive 32;
    }

BLOCK

$t->write_file_expand('nginx.conf', <<'CONF', UPSTREAMS => $upstreams);
%%TEST_GLOBALS%%
worker_processes 4;
worker_rlimit_nofile 8192;
events { worker_connections 4096; }
http {
    %%TEST_GLOBALS_HTTP%%
    access_log off;
    keepalive_requests 1000000;

%%UPSTREAMS%%
    server {
        # spreads clients over the workers evenly
        listen 127.0.0.1:8080 reuseport backlog=2048;

        %%KEEPALIVE%%
        proxy_set_header X-Worker $pid;

        location ~ ^/(?<group>\w+)/$ {
            proxy_pass http://$group;
        }

        location /requests { stub_status; }
        location /upstreamstatus { upstream_status; }
        location /upstreamcontrol { upstream_control; }
    }
}
CONF

my $backends = Test::Nginx->new(timeout => $timeout);

$backends->write_file_expand('nginx.conf', <<'CONF');
%%TEST_GLOBALS%%
worker_processes 1;
worker_rlimit_nofile 8192;
events { worker_connections 4096; }
http {
    %%TEST_GLOBALS_HTTP%%
    access_log off;
    keepalive_requests 1000000;

    server {
        listen 127.0.0.1:8081 backlog=2048;
        listen 127.0.0.1:8082 backlog=2048;
        listen 127.0.0.1:8083 backlog=2048;

        # who answered, and on whose behalf
        location / { return 200 "$server_port $http_x_worker"; }
    }
}
CONF

$backends->run();
$t->leak_keys('/upstreamstatus', port(8080));
$t->run();

my @ports = map { port($_) } 8081 .. 8083;
my %sum = (map { $_ => 0 } qw/total failed rounds down up most/);
my (%replies, %few, @astray, @missing);
my $end = now() + $long;

do { phase() } while (now() < $end);

note("$sum{total} requests, $sum{most} at the same time; $sum{rounds} rounds; ",
	"$sum{down} requests began while a server was down, ",
	"$sum{up} when it was up again");

is($sum{failed}, 0, 'no request failed');
cmp_ok($sum{most}, '>=', 950, 'requests at the same time');
is_deeply(\%replies, {
	"200 down true nil\n" => @names * $sum{rounds},
	"200 up true nil\n" => @names * $sum{rounds},
}, 'replies');
is($few{down} // 0, 0, 'requests began while a server was down');
is($few{up} // 0, 0, 'requests began when it was up again');
is_deeply(\@astray, [], 'none of them reached a server that was down');
is_deeply(\@missing, [], 'each worker uses a server that is up again');

# Takes servers down and up while the load goes on.  When it is over, what the
# clients saw is compared with the times of the replies.
sub phase () {
	my $uri = sub ($n) { "/$names[$n % @names]/" };
	my @loads = map {
		$t->load(uri => $uri, seconds => 60, concurrency => 500, records => 1,
			keepalive => $_)
	} 0, 1;

	my %workers = map { $_ => 1 } $t->workers();
	my (@windows, %open);

	for my $round (0 .. ROUNDS - 1) {
		my $peer = $round % 3;

		for my $word (qw/down up/) {
			for my $name (@names) {
				my $args = 'down=' . ($word eq 'down' ? 'true' : 'false')
					. "&peer=$peer&stream=$name";

				# What begins while this is under way may go either way.
				$open{$name}{to} = now() if $open{$name};
				my $reply = http_get("/upstreamcontrol?$args");
				$open{$name} = {
					from => now(), word => $word, name => $name,
					server => $ports[$peer],
				};
				push @windows, $open{$name};
				$replies{ $reply->status() . ' ' . $reply->body() }++;
			}

			# More than are under way at the moment of the reply.
			pass_by(1500);
		}

		$sum{rounds}++;
	}

	$_->{to} = now() for values %open;

	my @requests;

	for my $result (map { $_->finish(now => 1) } @loads) {
		$sum{$_} += $result->{$_} for qw/total failed/;
		push @requests, @{ $result->{requests} };
	}

	my $parallel = parallel(@requests);
	$sum{most} = $parallel if $parallel > $sum{most};

	for my $name (@names) {
		compare([ grep { $_->{name} eq $name } @windows ],
			[ grep { $_->{uri} eq "/$name/" } @requests ], keys %workers);
	}
}

# Goes through the times in which one server of an upstream was surely down, or
# all were surely up, and through the requests that began in each of them.
sub compare ($windows, $requests, @workers) {
	my @rest = sort { $a->{started} <=> $b->{started} } @$requests;

	for my $window (@$windows) {
		my ($n, %used) = (0);
		shift @rest while @rest && $rest[0]{started} <= $window->{from};

		while (@rest && $rest[0]{started} < $window->{to}) {
			my $request = shift @rest;
			my ($server, $worker) = split / /, $request->{body};

			# It may have waited until the server was up again.
			next if $window->{word} eq 'down'
				&& $request->{ended} >= $window->{to};

			$n++;
			$used{$worker}++ if ($server // '') eq $window->{server};
		}

		$sum{ $window->{word} } += $n;
		$few{ $window->{word} }++ if $n < FEW;
		my $where = "$window->{name}, server $window->{server}";

		if ($window->{word} eq 'down') {
			push @astray, map { "$where: $used{$_} by worker $_" } keys %used;
		}
		else {
			push @missing, map { "$where: none by worker $_" }
				grep { !$used{$_} } @workers;
		}
	}
}

# How many requests were under way at the same time, at most.
sub parallel (@requests) {
	my ($now, $most) = (0, 0);

	for (sort { $a->[0] <=> $b->[0] } map {
		[ $_->{started}, 1 ], [ $_->{ended}, -1 ]
	} @requests) {
		$now += $_->[1];
		$most = $now if $now > $most;
	}

	return $most;
}

# Waits for so many more requests.
sub pass_by ($n) {
	my $goal = seen() + $n;
	$t->wait_for(sub { seen() >= $goal }, 20, "$n more requests");
}

sub seen () {
	my ($n) = http_get('/requests')->body() =~ /^ \d+ \d+ (\d+)/m;
	return $n;
}

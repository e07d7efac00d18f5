#!/usr/bin/env perl

# Tests under load: parameters of servers change some hundred times a second,
# through all workers, under each balancing method.  No request fails for it,
# and nginx's totals are exact afterwards.
#
# TEST_NGINX_LONG is the time in seconds that all methods share.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;
use Test::Nginx::Churn qw/clients differences/;

my $long = $ENV{TEST_NGINX_LONG};
my $timeout = 150 + ($long // 0);

my $t = Test::Nginx->new(timeout => $timeout)->has(qw/
	module http proxy upstream_zone upstream_keepalive upstream_least_conn
	upstream_ip_hash upstream_hash upstream_random wrk
/);

# Name, what stands in the block.
my @methods = (
	[ 'round_robin', '' ],
	[ 'least_conn', 'least_conn;' ],
	[ 'ip_hash', 'ip_hash;' ],
	[ 'hash', 'hash $request_id;' ],
	[ 'consistent', 'hash $request_id consistent;' ],
	[ 'random', 'random;' ],
	[ 'random_two', 'random two;' ],
);

push @methods, [ 'least_time', 'least_time header;' ]
	if $t->has_module_built('upstream_least_time');

push @methods,
	[ 'sticky', 'sticky cookie route;' ],
	[ 'sticky_random', 'random; sticky cookie route;' ],
	[ 'sticky_consistent',
		'hash $request_id consistent; sticky cookie route;' ]
	if $t->has_module_built('sticky');

my $sticky = grep { $_->[1] =~ /sticky/ } @methods;
my $fair = grep { shows_weights(@$_) } @methods;
$t->plan(7 * @methods + $sticky + $fair + 3);

my $seconds = $long ? $long / @methods : 1.5;

my $realip = $t->has_module_built('realip')
	? 'set_real_ip_from 127.0.0.1; real_ip_header X-Real-IP;' : '';

# 8081 and 8082 are always there, so that no request has a reason to fail.
# 8083 comes and goes; 8084 comes and goes, and refuses; 8085 answers 503.
my $upstreams = join '', map { <<"BLOCK" } @methods;
    upstream $_->[0] {
        zone $_->[0] 128k;
        $_->[1]
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        server 127.0.0.1:8083;
        server 127.0.0.1:8084;
        server 127.0.0.1:8085 max_fails=0;
        keepalive 16;
    }

BLOCK

$t->write_file_expand('nginx.conf', <<'CONF', REALIP => $realip,
%%TEST_GLOBALS%%
worker_processes 4;
events { worker_connections 1024; }
http {
    %%TEST_GLOBALS_HTTP%%
    keepalive_requests 1000000;

    # each attempt of the requests that failed
    map $status $bad { 200 ""; default 1; }
    log_format bad '$time_iso8601 $status $request_uri '
                   '$upstream_addr $upstream_status';
    access_log %%TESTDIR%%/bad.log bad if=$bad;

%%UPSTREAMS%%
    upstream forgotten {
        zone forgotten 64k;
        random;
        server 127.0.0.1:8081;
        server 127.0.0.1:8084 weight=50 max_fails=0;
        server 127.0.0.1:8085 weight=50 max_fails=0;
    }

    upstream kept {
        zone kept 64k;
        hash $arg_key consistent;
        server 127.0.0.1:8081;
        server 127.0.0.1:8088 max_fails=0;
        keepalive 64;
    }

    server {
        # spreads clients over the workers evenly
        listen 127.0.0.1:8080 reuseport;
        %%REALIP%%

        %%KEEPALIVE%%
        proxy_set_header X-Worker $pid;
        proxy_next_upstream error timeout http_503;

        add_header X-Tried $upstream_addr always;

        location ~ ^/(?<group>\w+)/(?<what>.*)$ {
            proxy_pass http://$group/$what$is_args$args;
        }

        location /upstreamstatus {
            access_log off;
            upstream_status;
        }

        location /upstreamcontrol {
            access_log off;
            upstream_control;
            add_header X-Worker $pid;
        }
    }
}
CONF
	UPSTREAMS => $upstreams);

# Another nginx has the speed of a backend, daemons lend it the patience.
my $backends = Test::Nginx->new(timeout => $timeout);

$backends->write_file_expand('nginx.conf', <<'CONF');
%%TEST_GLOBALS%%
worker_processes 1;
events { worker_connections 4096; }
http {
    %%TEST_GLOBALS_HTTP%%
    access_log off;
    keepalive_requests 1000000;

    server {
        listen 127.0.0.1:8081;
        listen 127.0.0.1:8082;
        listen 127.0.0.1:8083;

        location /fast { return 200 "$server_port\n"; }
        location /slow/ { proxy_pass http://127.0.0.1:8086; }
        location /who { return 200 "$server_port $http_x_worker"; }
    }

    server {
        listen 127.0.0.1:8085;

        location /fast { return 503; }
        location /slow/ { proxy_pass http://127.0.0.1:8087; }
    }

    server {
        listen 127.0.0.1:8088;

        location /fast { return 200 "$server_port\n"; }
        location /late/ { proxy_pass http://127.0.0.1:8086/slow/; }
        location /slow/ { proxy_pass http://127.0.0.1:8087; }
    }
}
CONF

my %late = map { ("/slow/$_" => { delay => $_ / 1000 }) } 100, 200, 300;
$backends->backend('127.0.0.1:8086', uris => \%late);
my $failing = $backends->backend('127.0.0.1:8087', status => 503,
	uris => \%late);

$backends->run();
$t->leak_keys('/upstreamstatus', port(8080));
$t->run();

method(@$_) for @methods;

forgotten();
kept();

sub method ($name, $balancer) {
	my $retried = $failing->count();
	my @uris = map { "/$name/$_" } qw{slow/100 slow/200 slow/300 fast};
	my @loads = (
		$t->load(uri => sub ($n) { $uris[ $n % @uris ] }, seconds => $seconds,
			concurrency => 24, keepalive => 1,
			headers => { 'X-Real-IP' => '10.1.2.3' }),
		$t->load(uri => "/$name/fast", seconds => $seconds, concurrency => 4,
			headers => { 'X-Real-IP' => '172.16.5.4' }),
	);
	my $churn = Test::Nginx::Churn->start(dir => $t->testdir(),
		seconds => $seconds,
		clients => [ clients({ $name => values_of($name) }) ]);

	my $wrk = $balancer =~ /sticky/ ? sampled($name, $churn)
		: $t->wrk(uri => "/$name/fast", connections => 8, threads => 1,
			seconds => int($seconds + 0.5),
			headers => { 'X-Real-IP' => '192.168.7.9' });

	my $changes = $churn->finish();
	my @results = map { $_->finish() } @loads;
	$retried = $failing->count() - $retried;

	my $total = 0;
	$total += $_->{total} for $wrk, @results;
	note("$name: $total requests, $retried of them tried again after a late ",
		"failure; $changes->{acked} changes in ",
		sprintf('%.1f', $changes->{seconds}), ' s');

	is_deeply([ map { $_->{failed} } $wrk, @results ], [ 0, 0, 0 ],
		"$name: no request failed")
		or diag(explain([ $wrk->{text}, map { @$_{qw/by_status errors/} }
			@results ]), attempts($name));
	cmp_ok($retried, '>', 0, "$name: requests were tried again");
	is($wrk->{cookies}, $wrk->{total}, "$name: one cookie in each reply")
		if $balancer =~ /sticky/;

	is_deeply($changes->{failed}, {}, "$name: no change failed");
	cmp_ok($changes->{acked}, '>', 20 * $seconds, "$name: changes");
	cmp_ok(scalar keys %{ $changes->{workers} }, '>', 1,
		"$name: changes through several workers");
	is_deeply([ @{ $changes->{wrong} }, @{ $changes->{backwards} },
		differences(get_json('/upstreamstatus'), $changes->{model}) ], [],
		"$name: each change is there");

	my $reply = control("/upstreamcontrol?upstream=$name"
		. '&server=127.0.0.1:8082&weight=19');
	is($reply->status(), 200, "$name: weight");

	is_deeply([ unfair($name) ], [], "$name: each worker follows")
		if shows_weights($name, $balancer);
}

# Whether the answers to a few requests show the weights: the client's address
# does not change, and others look at what servers do before they look at
# weights.
sub shows_weights ($name, $balancer) {
	return $name !~ /\A(?:ip_hash|least_conn|least_time|random_two)\z/;
}

# Workers by which, of two servers of weights 1 and 19, the second gets less
# than it should.
sub unfair ($name) {
	my $uri = "/upstreamcontrol?upstream=$name";
	my @down = map { "127.0.0.1:$_" } 8083 .. 8085;
	control("$uri&servers=" . join(',', @down) . '&down=');
	control("$uri&server=127.0.0.1:8081&weight=1");

	my $got = burst(uri => "/$name/who", n => 240);
	my (%all, %second);

	for my $request (@{ $got->{requests} }) {
		my ($server, $worker) = split / /, $request->{body};
		$all{$worker}++;
		$second{$worker}++ if $server eq port(8082);
	}

	return map { "worker $_: " . ($second{$_} // 0) . " of $all{$_}" }
		grep { ($second{$_} // 0) < 0.75 * $all{$_} } sort keys %all;
}

# A change of weights makes a balancer prepare again for a request that is
# under way, and forget where that request failed.  Each attempt on the same
# server is one less on another.  Here there are as many as servers, and the
# one that works comes last.
sub forgotten () {
	my $churn = weights('forgotten', 8081, 1, 2);
	my $got = burst(uri => '/forgotten/slow/100', n => 80, concurrency => 20);
	$churn->finish();

	is($got->{failed}, 0, 'none tried the same server twice')
		or diag(explain($got->{by_status}), attempts('forgotten'));
}

# The same where the failure came over a connection that had been kept, and
# where there are more of these to the same server.
sub kept () {
	my ($key) = grep {
		my $tried = http_get("/kept/fast?key=$_")->header('X-Tried') // '';
		$tried eq '127.0.0.1:' . port(8088);
	} 1 .. 50;

	# More points do not take keys from the server.
	my $churn = weights('kept', 8088, 2, 3, 4);
	my $warm = burst(uri => "/kept/late/300?key=$key", n => 80,
		concurrency => 80);
	is_deeply($warm->{by_status}, { 200 => 80 }, 'connections are kept');

	my $got = burst(uri => "/kept/slow/100?key=$key", n => 16,
		concurrency => 16);
	$churn->finish();

	is($got->{failed}, 0, 'none tried the same server twice again')
		or diag(explain($got->{by_status}), attempts('kept'));
}

# Changes of a weight, for a while.
sub weights ($name, $port, @weights) {
	return Test::Nginx::Churn->start(dir => $t->testdir(), seconds => 1.5,
		clients => [ clients({ $name => { $port => { weight => \@weights } } }) ]);
}

# What became of the first requests that failed.
sub attempts ($name) {
	my @lines = grep { m{ /$name/} }
		split /^/, $t->logical($t->read_file('bad.log'));
	splice @lines, 20 if @lines > 20;

	return @lines;
}

# What may be set to what, so that 8081 and 8082 can always take a request.
sub values_of ($name) {
	# A point of a consistent hash takes its time to compute, and there are
	# 160 of them to a unit.
	my @weights = $name =~ /consistent/ ? (1, 2, 3) : (1, 2, 5, 20, 100);

	my %common = (fail_timeout => [ 0, 1, 10 ], weight => \@weights);

	my @fails = (max_fails => [ 0, 1, 3 ]);
	my @limits = (max_conns => [ 0, 1, 2, 50 ]);
	my @states = (state => [qw/up down drain/]);

	return {
		8081 => { %common, @fails, state => ['up'] },
		8082 => { %common, @fails, state => ['up'] },
		8083 => { %common, @fails, @limits, @states },
		8084 => { %common, @fails, @limits, @states },
		8085 => { %common, @limits, state => ['up'] },
	};
}

# Requests whose headers are looked at, in the place of wrk's.
sub sampled ($name, $churn) {
	my %result = (total => 0, failed => 0, cookies => 0, text => '');

	while ($churn->running()) {
		my $uri = "/$name/" . ($result{total}++ % 8 ? 'fast' : 'slow/100');
		my $reply = http_get($uri);
		my @cookies = @{ $reply->headers()->{'set-cookie'} // [] };

		if ($reply->status() != 200) {
			$result{failed}++;
			$result{text} .= $reply->status() . ' ' . $reply->error() . "\n";
		}

		$result{cookies}++ if @cookies == 1;
	}

	return \%result;
}

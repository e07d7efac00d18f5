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
use Test::Nginx::Churn qw/differences totals/;

my $long = $ENV{TEST_NGINX_LONG};

my $t = Test::Nginx->new(timeout => 150 + ($long // 0))->has(qw/
	module http proxy upstream_zone upstream_keepalive upstream_least_conn
	upstream_ip_hash upstream_hash upstream_random wrk
/);

# nginx's consistent hash and random keep weights in tables of each worker,
# which older ones never make anew.
my $tables_follow = $t->has_version('1.27.3');

# By name: what stands in the block, and whether weights can change.
my @methods = (
	[ round_robin => '', 1 ],
	[ least_conn => 'least_conn;', 1 ],
	[ ip_hash => 'ip_hash;', 1 ],
	[ hash => 'hash $request_id;', 1 ],
	[ consistent => 'hash $request_id consistent;', $tables_follow ],
	[ random => 'random;', $tables_follow ],
	[ random_two => 'random two;', $tables_follow ],
);

push @methods, [ least_time => 'least_time header;', 1 ]
	if $t->has_module_built('upstream_least_time');

if ($t->has_module_built('sticky')) {
	push @methods,
		[ sticky => 'sticky cookie route;', 1 ],
		[ sticky_random => 'random; sticky cookie route;', 1 ],
		[ sticky_consistent => 'hash $request_id consistent; '
			. 'sticky cookie route;', 1 ];
}

$t->plan(7 * @methods + 1);

my $seconds = $long ? $long / @methods : 1.6;

# 8081 and 8082 are always there, so that no request has a reason to fail.
# 8083 comes and goes; 8084 refuses; 8085 answers 503, at once or late.
my $upstreams = join '', map {
	my ($name, $balancer) = @$_;

	# keepalive comes after the balancer, sticky too, and after keepalive.
	my ($first, $last) = $balancer =~ /\A(.*?)(sticky .*)?\z/;
	$last //= '';

	<<"BLOCK";
    upstream $name {
        zone $name 128k;
        $first
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        server 127.0.0.1:8083;
        server 127.0.0.1:8084;
        server 127.0.0.1:8085 max_fails=0;
        keepalive 16;
        $last
    }

BLOCK
} @methods;

my $realip = $t->has_module_built('realip')
	? 'set_real_ip_from 127.0.0.1; real_ip_header X-Real-IP;' : '';

$t->write_file_expand('nginx.conf', <<'CONF', UPSTREAMS => $upstreams, REALIP => $realip);
%%TEST_GLOBALS%%
worker_processes 4;
events { worker_connections 1024; }
http {
    %%TEST_GLOBALS_HTTP%%
    access_log off;

%%UPSTREAMS%%
    server {
        # spreads the clients over all workers
        listen 127.0.0.1:8080 reuseport;
        keepalive_requests 1000000;
        %%REALIP%%

        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_next_upstream error timeout http_503;

        location ~ ^/(?<group>\w+)/(?<what>.*)$ {
            proxy_pass http://$group/$what;
        }

        location /upstreamstatus { upstream_status; }

        location /upstreamcontrol {
            upstream_control;
            add_header X-Worker $pid;
        }
    }
}
CONF

# The backends are another nginx, for the sake of speed; a daemon lends it the
# patience.
my $slow = $t->backend('127.0.0.1:8086', body => 'slow', uris => {
	map { ("/slow/$_" => { delay => $_ / 1000 }) } 100, 200, 300,
});

my $servers = Test::Nginx->new(timeout => 150 + ($long // 0));
$servers->write_file_expand('nginx.conf', <<'CONF');
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
    }

    server {
        listen 127.0.0.1:8085;

        location /fast { return 503; }

        location /slow/ {
            proxy_pass http://127.0.0.1:8086;
            proxy_intercept_errors on;
            header_filter;
        }
    }
}
CONF

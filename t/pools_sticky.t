#!/usr/bin/env perl

# Tests for pools with sticky: a client gets the cookie of the server that
# answered, and of no other.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()->has(qw/
	module http proxy upstream_zone upstream_least_conn upstream_hash sticky
/)->plan(12);

$t->write_file_expand('nginx.conf', <<'CONF');
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    upstream app {
        pool first;
        pool second;
        pool third;
    }

    upstream first {
        zone first 128k;
        server 127.0.0.1:8081 max_fails=0;
        server 127.0.0.1:8082 max_fails=0;
        sticky cookie route;
    }

    upstream second {
        zone second 128k;
        least_conn;
        server 127.0.0.1:8083 max_fails=0;
        server 127.0.0.1:8084 max_fails=0;
        sticky cookie route;
    }

    upstream third {
        zone third 128k;
        hash $request_id;
        server 127.0.0.1:8085 max_fails=0;
    }

    server {
        listen 127.0.0.1:8080 reuseport;

        %%CONTROL%%

        location / {
            proxy_pass http://app;
        }
    }
}
CONF

my %at = map { $_ => $t->backend("127.0.0.1:$_") } 8081 .. 8085;

$t->run();
$t->leak_keys('/status', 8080);

my ($server, $cookie) = ask();
like($server, qr/\A808[12]\z/, 'the first pool');
is_deeply(stays($cookie), { $server => 10 }, 'keeps its clients');

# Both of the first pool are tried, and then one of the second.
$_->stop() for @at{8081, 8082};
my ($other, $its, @more) = ask();
like($other, qr/\A808[34]\z/, 'the second pool');
is_deeply(\@more, [], 'has a cookie, and that alone is sent');
isnt($its, $cookie, 'which is another');
is_deeply(stays($its), { $other => 10 }, 'and keeps its clients');
my ($later, @cookies) = ask($cookie);
like($later, qr/\A808[34]\z/, 'it serves those of the first, too');
is(scalar @cookies, 1, 'who have another cookie then');

# All of two pools are tried: the third sets no cookie.
$_->stop() for @at{8083, 8084};
is_deeply([ ask() ], [ '8085' ], 'the third pool has no cookie');

$_->restart() for @at{8081 .. 8084};
is_deeply(stays($cookie), { $server => 10 }, 'the first again');
my ($who, @of_first) = ask($its);
like($who, qr/\A808[12]\z/, 'for all');
is(scalar @of_first, 1, 'with a cookie of its own');

# The server, and the cookies that it set.
sub ask ($cookie = undef) {
	my $r = http_get('/', $cookie ? (headers => { Cookie => $cookie }) : ());
	return ($r->body(), map { s/;.*//r } @{ $r->headers()->{'set-cookie'} // [] });
}

# Where a client with a cookie is led to.
sub stays ($cookie) {
	my %count;
	$count{ (ask($cookie))[0] }++ for 1 .. 10;
	return \%count;
}

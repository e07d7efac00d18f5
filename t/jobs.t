#!/usr/bin/env perl

# Tests for work that no request asks for: one worker does it for all, another
# one takes it over, and it keeps no worker from ending.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()->has(qw/module http proxy upstream_zone/);

$t->plan(8);

$t->write_file_expand('nginx.conf', <<'CONF');
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    upstream u {
        zone u 128k;
        server 127.0.0.1:8083 backup;
        server 127.0.0.1:8082 down;
    }

    server {
        listen 127.0.0.1:8080;
        location / {
            proxy_pass http://u;
            proxy_next_upstream off;
            add_header X-Worker $pid;
        }
        location /status { upstream_status; }
        location /control { upstream_control; }
    }
}
CONF

$t->backend('127.0.0.1:8081', delay => 0.3);
$t->run();

# No change and no request comes by while this waits.  A worker that is stopped
# may have taken the connection.
sub is_freed ($seconds) {
	return $t->wait_for(sub {
		my $r = http_get('/status?upstream=u', timeout => 1);
		return $r->body() =~ /"zombies":0\b/;
	}, $seconds, 'the peer is freed');
}

# A server leaves while it serves a request, which ends after that.
sub leave () {
	control('/control?upstream=u&add=&server=127.0.0.1:8081');
	my $r = http_start(uri => '/', port => 8080);
	$t->wait_for(sub {
		return grep { $_->{active} }
			get_json('/status?upstream=u')->{upstreams}{u}{peers}->@*;
	}, 5, 'a request is under way');
	control('/control?upstream=u&remove=&server=127.0.0.1:8081');
	return http_finish($r);
}

my $r = leave();
is($r->status(), 200, 'a request whose server left');
ok(is_freed(3), 'the peer is freed, though nobody comes by');

# The worker that served the last request would free the peer soon.  Whichever
# worker frees all others, the other one takes over.
for (1 .. 3) {
	my $pid = leave()->header('X-Worker');
	kill STOP => $pid;
	my $freed = is_freed(6);
	kill CONT => $pid;
	ok($freed, 'freed while the worker that served it is stopped');
}

$t->kill_worker(leave()->header('X-Worker'));
ok(is_freed(6), 'freed after the death of the worker that served it');

# The jobs of a worker do not keep it.
my @old = $t->workers();
$t->reload();
ok($t->wait_for(sub { !grep { kill 0, $_ } @old }, 5, 'old workers'),
	'workers of the configuration before end');
leave();
ok(is_freed(3), 'and those of the new one do the work');

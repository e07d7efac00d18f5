#!/usr/bin/env perl

# Tests for requests through upstreams of pools: bodies, downloads and upgrades
# across a fail-over, what is logged of a request that several pools had, other
# requests that nginx makes by itself, and a worker that is killed.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Digest::MD5 qw/md5_hex/;
use IO::Socket::IP;
use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()->has(qw/
	module http proxy upstream_zone upstream_keepalive upstream_least_conn
	auth_request mirror
/)->plan(48);

# How long a download takes, and how many pieces it has.
use constant { SECONDS => 3, PIECES => 30, SIZE => 4000 };

$t->write_file_expand('nginx.conf', <<'CONF');
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    log_format addr '$request_uri $status [$upstream_addr] [$upstream_status]';
    access_log %%TESTDIR%%/addr.log addr;
    proxy_cache_path %%TESTDIR%%/cache keys_zone=cache:1m;

    upstream app {
        pool primary;
        pool dr;
    }

    # A failure is forgotten by the time of the next request.
    upstream primary {
        zone primary 64k;
        server 127.0.0.1:8081 max_fails=0;
        server 127.0.0.1:8082 max_fails=0;
        keepalive 4;
    }

    upstream dr {
        zone dr 64k;
        least_conn;
        server 127.0.0.1:8083 max_fails=0;
        keepalive 4;
    }

    upstream long {
        pool near;
        pool far;
    }

    upstream near {
        zone near 64k;
        server 127.0.0.1:8084;
    }

    upstream far {
        zone far 64k;
        server 127.0.0.2:8084;
    }

    map $http_upgrade $connection_upgrade {
        default upgrade;
        ''      '';
    }

    server {
        listen 127.0.0.1:8080 reuseport;

        %%KEEPALIVE%%
        proxy_set_header X-Worker $pid;
        client_max_body_size 10m;
        client_body_buffer_size 8k;

        location /status {
            access_log off;
            upstream_status;
        }

        location /control {
            access_log off;
            upstream_control;
        }

        location /app {
            proxy_pass http://app;
            proxy_next_upstream error timeout http_503;
        }

        location /streamed {
            proxy_pass http://app;
            proxy_request_buffering off;
        }

        location /long {
            proxy_pass http://long;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_buffering off;
        }

        location /named {
            proxy_pass http://app;
            proxy_next_upstream off;
            error_page 502 503 = @named;
            proxy_intercept_errors on;
        }

        location @named {
            proxy_pass http://long;
        }

        location /accel {
            proxy_pass http://app;
        }

        location /cached {
            proxy_pass http://app;
            proxy_cache cache;
            proxy_cache_valid 200 1s;
            proxy_cache_use_stale updating error;
            proxy_cache_background_update on;
            add_header X-Cache $upstream_cache_status;
        }

        location /authorized {
            auth_request /app/auth;
            proxy_pass http://app;
        }

        location /mirrored {
            mirror /app/mirror;
            proxy_pass http://far;
        }
    }
}
CONF

my %at = map { $_ => $t->backend("127.0.0.1:$_") } 8081 .. 8083;
$at{$_}->set(uris => {
	'/accel' => { headers => { 'X-Accel-Redirect' => '/app/accel' } },
}) for 8081, 8082;

# At two addresses, which are two servers.
my $listener = IO::Socket::IP->new(LocalHost => '0.0.0.0',
	LocalPort => port(8084), Listen => 64, ReuseAddr => 1)
	or die "cannot listen: $!\n";
$t->run_daemon(\&serve, $listener);
close $listener;

$t->run();
$t->leak_keys('/status', 8080);

bodies();
long_requests();
logged();
background_update();
subrequests();
killed();

sub act ($name, $args) {
	my $r = control("/control?upstream=$name&$args");
	die "$name: $args: " . $r->told() . "\n"
		if $r->status() != 200;
}

sub pools ($name) {
	return join ' ', map { "$_->{pool} $_->{state}" }
		@{ get_json("/status?upstream=$name")->{upstreams}{$name}{pools} };
}

# What is logged of the only request with this uri: status, addresses by their
# ports, their statuses.
sub line ($uri) {
	my $find = sub {
		my ($line) = map { /\A\Q$uri\E (.*)/ ? $1 : () }
			split /\n/, $t->logical($t->read_file('addr.log'));
		return $line;
	};
	$t->wait_for($find, 5, "$uri is logged");
	return $find->() =~ s/127\.0\.0\.\d+://gr;
}

sub bodies {
	my $body = join '', map { "$_ " } 1 .. 20_000;
	my $sum = md5_hex($body);
	my $received = sub { md5_hex(($at{8083}->requests())[-1]{body} // '') };
	my @put = (method => 'PUT', body => $body);

	$_->stop() for @at{8081, 8082};
	is(http_request(uri => '/app/refused', @put)->body(), '8083',
		'a body of which nobody had anything');
	is($received->(), $sum, 'is whole');
	is(http_request(uri => '/streamed/refused', @put)->body(), '8083',
		'a body that is passed on as it comes');
	is($received->(), $sum, 'is whole: nobody had anything of it yet');
	my @post = (method => 'POST', body => $body);
	is(http_request(uri => '/app/posted', @post)->body(), '8083',
		'one that must not be sent twice');
	is($received->(), $sum, 'is sent once');

	$_->restart(), $_->set(reset => 'request') for @at{8081, 8082};
	my $count = $at{8083}->count();
	is(http_request(uri => '/app/reset', @put)->body(), '8083',
		'a body that two servers had');
	is($received->(), $sum, 'is whole once more');
	like(line('/app/reset'), qr/\A200 \[808[12], 808[12], 8083\] \[502, 502, 200\]\z/,
		'after both');
	is(http_request(uri => '/streamed/reset', @put)->status(), 502,
		'one that was passed on as it came is gone');
	like(line('/streamed/reset'), qr/\A502 \[808[12]\] \[502\]\z/,
		'with the first server');
	is(http_request(uri => '/app/once', @post)->status(), 502,
		'what must not be sent twice is not');
	is($at{8083}->count(), $count + 1, 'the next pool had no more');
	is_deeply([ grep { $_->{body} ne $body } $at{8081}->requests(),
		$at{8082}->requests() ], [], 'each server had all of it');
	$_->set(reset => '') for @at{8081, 8082};

	$_->set(status => 503) for @at{8081, 8082};
	is(http_request(uri => '/app/busy', @put)->body(), '8083',
		'a body that two servers would not take');
	is($received->(), $sum, 'is whole as well');
	$_->set(status => 200) for @at{8081, 8082};
}

# A backend that takes its time: a download in pieces, and an echo after an
# upgrade.  Each connection has a process of its own.
sub serve ($listener) {
	local $SIG{CHLD} = 'IGNORE';

	while (my $s = $listener->accept()) {
		my $pid = fork() // die "fork: $!\n";
		next if $pid;

		alarm 30;
		my $who = $s->sockhost();
		my $head = '';
		while ($head !~ /\r\n\r\n/) { sysread $s, $head, 4096, length $head or exit }

		if ($head =~ /^Upgrade:/mi) {
			syswrite $s, "HTTP/1.1 101 Switching\r\nUpgrade: echo\r\n"
				. "Connection: upgrade\r\n\r\n";
			while (sysread $s, my $bytes, 4096) { syswrite $s, "<$who $bytes>" }
			exit;
		}

		if ($head !~ m{^GET /long/download}) {
			my $size = length $who;
			syswrite $s, "HTTP/1.1 200 OK\r\nContent-Length: $size\r\n"
				. "Connection: close\r\n\r\n$who";
			exit;
		}

		my $size = PIECES * SIZE;
		syswrite $s, "HTTP/1.1 200 OK\r\nContent-Length: $size\r\n\r\n";
		for my $piece (1 .. PIECES) {
			syswrite $s, chr(65 + $piece % 26) x SIZE;
			select undef, undef, undef, SECONDS / PIECES;
		}
		exit;
	}
}

# What comes next over an upgraded connection.
sub answer ($handle, $say = undef) {
	my $s = $handle->{over};
	my $got = '';
	syswrite $s, $say if defined $say;

	$t->wait_for(sub { sysread $s, $got, 4096, length $got;
		$got =~ /\r\n\r\n\z|>\z/ }, 5, 'an answer');

	return $got;
}

sub upgrade {
	my $handle = http_start(uri => '/long/upgrade', timeout => 20,
		headers => { Upgrade => 'echo', Connection => 'upgrade' });
	like(answer($handle), qr/\AHTTP\/1.1 101 /, 'upgraded');
	return $handle;
}

# What is under way stays where it is while others go elsewhere and return.
sub long_requests {
	my $near = upgrade();
	my $download = http_start(uri => '/long/download', timeout => 20);
	$t->wait_for(sub { get_json('/status')->{upstreams}{near}{peers}[0]{active}
		== 2 }, 5, 'both are under way');

	act('near', 'peer=0&down=');
	is(http_get('/long/quick')->body(), '127.0.0.2', 'others: the next pool');
	my $far = upgrade();
	is(answer($near, 'a') . answer($far, 'b'), '<127.0.0.1 a><127.0.0.2 b>',
		'those upgraded before and after');
	act('near', 'peer=0&up=');
	is(http_get('/long/quick')->body(), '127.0.0.1', 'others return');
	act('near', 'remove=&id=0');
	is(http_get('/long/quick')->body(), '127.0.0.2', 'the first pool is empty');
	act('near', 'add=&server=127.0.0.1:8084');
	is(http_get('/long/quick')->body(), '127.0.0.1', 'and no longer');

	is(answer($near, 'c') . answer($far, 'd'), '<127.0.0.1 c><127.0.0.2 d>',
		'those upgraded go on');
	my $r = http_finish($download, timeout => 20);
	is(length $r->body(), PIECES * SIZE, 'the download is whole');
	close $_->{over} for $near, $far;
	is(line('/long/download'), '200 [8084] [200]', 'as it is logged');
}

# Requests that go through several pools, or through pools several times.
sub logged {
	$_->stop() for @at{8081, 8082};
	is(http_get('/app/log')->body(), '8083', 'a request through two pools');
	like(line('/app/log'),
		qr/\A200 \[808[12], 808[12], 8083\] \[502, 502, 200\]\z/, 'its log');
	is(http_get('/named')->body(), '127.0.0.1', 'one to other pools');
	like(line('/named'), qr/\A200 \[808[12] : 8084\] \[502 : 200\]\z/, 'its log');
	$_->restart() for @at{8081, 8082};

	like(http_get('/accel')->body(), qr/\A808[12]\z/,
		'one that the first answer leads to the same pools');
	like(line('/accel'), qr/\A200 \[808[12] : 808[12]\] \[200 : 200\]\z/,
		'its log');
	left();
}

# Where the first server was there is another one by the time of the log.
sub left {
	act('primary', 'server=127.0.0.1:8082&down=');
	$at{8081}->set(uris => { '/app/left' => { status => 503, delay => 1 } });
	$at{8083}->set(uris => { '/app/left' => { delay => 2 } });
	my %count = map { $_ => $at{$_}->count() } 8081, 8083;
	my $reached = sub ($port) {
		$t->wait_for(sub { $at{$port}->count() > $count{$port} }, 5, $port);
	};

	my $under_way = http_start(uri => '/app/left');
	$reached->(8081);
	act('primary', 'remove=&server=127.0.0.1:8081');
	$reached->(8083);
	$t->wait_for(sub { !get_json('/status?verbose=')->{upstreams}{primary}
		{zombies} }, 5, 'the server is gone');
	act('primary', 'add=&server=127.0.0.1:8089&down=');
	is(http_finish($under_way)->body(), '8083', 'one whose server left');
	is(line('/app/left'), '200 [8081, 8083] [503, 200]', 'its log');

	$_->set(uris => {}) for @at{8081, 8083};
	act('primary', 'remove=&server=127.0.0.1:8089');
	act('primary', 'add=&server=127.0.0.1:8081&max_fails=0');
	act('primary', 'server=127.0.0.1:8082&up=');
}

sub background_update {
	like(http_get('/cached')->body(), qr/\A808[12]\z/, 'an answer to keep');
	$_->stop() for @at{8081, 8082};
	my $state = sub { http_get('/cached')->header('X-Cache') };
	ok($t->wait_for(sub { $state->() eq 'STALE' }, 5, 'stale'),
		'it is old: no client waits for another');
	ok($t->wait_for(sub { http_get('/cached')->body() eq '8083' }, 5,
		'updated'), 'nginx got one from the next pool by itself');
	$_->restart() for @at{8081, 8082};
}

sub subrequests {
	$_->stop() for @at{8081, 8082};
	my $count = $at{8083}->count();
	is(http_get('/authorized')->body(), '8083', 'a request that asks first');
	is_deeply([ map { $_->{uri} } ($at{8083}->requests())[$count .. $count + 1] ],
		[ '/app/auth', '/authorized' ], 'both through two pools');

	$at{8083}->set(uris => { '/app/auth' => { status => 403 } });
	is(http_get('/authorized')->status(), 403, 'who says no');
	$at{8083}->set(uris => {});

	$count = $at{8083}->count();
	is(http_get('/mirrored')->body(), '127.0.0.2', 'a request with a mirror');
	ok($t->wait_for(sub { $at{8083}->count() > $count }, 5, 'mirrored'),
		'which goes through two pools');
	$_->restart() for @at{8081, 8082};
}

# What other workers know outlives one.
sub killed {
	act('primary', 'servers=127.0.0.1:8081,127.0.0.1:8082&down=');
	$at{8083}->set(uris => { '/app/slow' => { delay => 20 } });
	my $under_way = http_start(uri => '/app/slow', timeout => 20);
	$t->wait_for(sub { ($at{8083}->requests())[-1]{uri} eq '/app/slow' }, 5,
		'a request is under way');
	is(pools('app'), 'primary unavail dr active', 'the second pool is active');

	$t->kill_worker(($at{8083}->requests())[-1]{headers}{'x-worker'});
	is(http_finish($under_way)->status(), 0, 'a worker is killed with it');
	is(pools('app'), 'primary unavail dr active', 'the second pool still is');
	is_deeply(burst(uri => '/app', n => 12)->{by_body}, { 8083 => 12 },
		'and serves');
	act('primary', 'servers=127.0.0.1:8081,127.0.0.1:8082&up=');
	is_deeply(burst(uri => '/app', n => 12)->{by_body}, { 8081 => 6, 8082 => 6 },
		'as does the first later');

	# Counts the requests anew.
	$t->reload(old_gone => 1);
	is_deeply(burst(uri => '/app', n => 12)->{by_body}, { 8081 => 6, 8082 => 6 },
		'also after a reload');
}

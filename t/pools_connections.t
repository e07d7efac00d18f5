#!/usr/bin/env perl

# Tests for connections of upstreams of pools: those that are kept belong to one
# pool, as do sessions of TLS; a limit of connections is one for all workers.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use IO::Select;
use IO::Socket::IP;
use Test::More;

use Test::Nginx;
use Test::Nginx::Process qw/alive/;

my $t = Test::Nginx->new()->has(qw/
	module http proxy ssl upstream_zone upstream_keepalive upstream_least_conn
	upstream_hash
/);

plan(skip_all => 'no openssl') if system('openssl version >/dev/null 2>&1');

$t->plan(23);

use constant WORKERS => 2;

$t->write_file_expand('nginx.conf', <<'CONF');
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    upstream kept {
        pool kept_a;
        pool kept_b;
    }

    upstream kept_a {
        zone kept_a 64k;
        server 127.0.0.1:8081;
        keepalive 4;
    }

    upstream kept_b {
        zone kept_b 64k;
        least_conn;
        server 127.0.0.1:8082;
        keepalive 4;
    }

    upstream closing {
        pool closing_a failback=1h;
        pool kept_b;
    }

    upstream closing_a {
        zone closing_a 64k;
        server 127.0.0.1:8086;
        keepalive 4;
    }

    upstream limited {
        pool limited_a;
        pool limited_b;
        pool limited_c;
    }

    upstream limited_a {
        zone limited_a 64k;
        server 127.0.0.1:8083 max_conns=2;
    }

    upstream limited_b {
        zone limited_b 64k;
        hash $request_id;
        server 127.0.0.1:8084 max_conns=1;
    }

    upstream limited_c {
        zone limited_c 64k;
        least_conn;
        server 127.0.0.1:8085;
    }

    upstream secure {
        pool secure_a;
        pool secure_b;
    }

    upstream secure_a {
        zone secure_a 64k;
        server 127.0.0.1:8087;
    }

    upstream secure_b {
        zone secure_b 64k;
        hash a consistent;
        server 127.0.0.2:8087;
    }

    server {
        listen 127.0.0.1:8080 reuseport;

        %%KEEPALIVE%%

        %%CONTROL%%

        %%BY_NAME%%

        location = /u/secure {
            # Newer nginx would keep the connection, and need no session.
            proxy_http_version 1.0;
            proxy_set_header Connection close;
            proxy_pass https://secure;
        }

        location = /u/checked {
            proxy_http_version 1.0;
            proxy_set_header Connection close;
            proxy_ssl_verify on;
            proxy_ssl_trusted_certificate %%TESTDIR%%/trusted.crt;
            proxy_ssl_name nobody;
            proxy_pass https://secure;
            add_header X-Addr $upstream_addr always;
            add_header X-None $upstream_no_connection always;
        }
    }
}
CONF

my %at = map { $_ => $t->backend("127.0.0.1:$_") } 8081 .. 8085;

my $listener = IO::Socket::IP->new(LocalHost => '127.0.0.1',
	LocalPort => port(8086), Listen => 64, ReuseAddr => 1)
	or die "cannot listen: $!\n";
my $closing = $t->run_daemon(\&serve_once, $listener);
close $listener;

# Servers that would take each other's sessions: that of another shows.
my $backends = Test::Nginx->new();
$backends->write_file_expand('nginx.conf', <<'CONF');
%%TEST_GLOBALS%%
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    server {
        listen 127.0.0.1:8087 ssl;
        listen 127.0.0.2:8087 ssl;
        ssl_certificate %%TESTDIR%%/server.crt;
        ssl_certificate_key %%TESTDIR%%/server.key;
        ssl_protocols TLSv1.2;
        ssl_session_cache shared:sessions:1m;
        ssl_session_tickets off;

        location / { return 200 "$server_addr $ssl_session_reused"; }
    }
}
CONF

my $dir = $backends->testdir();
system('openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 '
	. '-nodes -days 2 -subj /CN=localhost '
	. "-keyout $dir/server.key -out $dir/server.crt >$dir/openssl.out 2>&1") == 0
	or die "openssl: ", $backends->read_file('openssl.out');
$t->write_file('trusted.crt', $backends->read_file('server.crt'));

$backends->run();
$t->run();
# Sessions have their pages in the zone.
$t->leak_keys('/status', port(8080), pages => { secure_a => 3, secure_b => 3 });

kept();
stale();
limited();
sessions();

sub act ($name, $args) {
	my $r = control("/control?upstream=$name&$args");
	die "$name: $args: " . $r->told() . "\n"
		if $r->status() != 200;
}

# Many requests to all workers, one after the other.
sub spread ($name) {
	return burst(uri => "/u/$name", n => 30, concurrency => 1)->{by_body};
}

# Each worker keeps a connection to each pool.
sub kept {
	my @requests = (0, 0);

	for my $round (1 .. 3) {
		act('kept_a', 'peer=0&up=');
		is_deeply(spread('kept'), { 8081 => 30 }, 'the first pool');
		act('kept_a', 'peer=0&down=');
		is_deeply(spread('kept'), { 8082 => 30 }, 'the second');
	}

	act('kept_a', 'peer=0&up=');
	is_deeply([ map { $at{$_}->count() } 8081, 8082 ], [ 90, 90 ],
		'no request went elsewhere');
	is_deeply([ grep { $at{$_}->connections() > WORKERS } 8081, 8082 ], [],
		'over a connection of each worker')
		or diag(map { $at{$_}->connections() . "\n" } 8081, 8082);
}

# A server closes a connection at the moment that a request comes over it: it
# has not failed, nor has its pool.
sub stale {
	my $mark = $t->log_mark();
	my $got = burst(uri => '/u/closing', n => 30, concurrency => 1);
	is_deeply($got->{by_body}, { 8086 => 30 }, 'another try where it was');
	cmp_ok(scalar $t->grep_log(qr/prematurely closed|reset by peer/, $mark), '>',
		9, 'connections were closed') or diag($t->grep_log(qr/error/, $mark));
	is_deeply([ map { $_->{fails} } @{ get_json('/status')
		->{upstreams}{closing_a}{peers} } ], [ 0 ], 'which is no failure');

	# One that has no servers at all is another matter.
	kill TERM => $closing;
	$t->wait_for(sub { !alive($closing) }, 5, 'the server is gone');
	$got = burst(uri => '/u/closing', n => 10, concurrency => 1);
	is_deeply($got->{by_body}, { 8082 => 10 }, 'the next pool');
	is_deeply([ map { $_->{fails} } @{ get_json('/status')
		->{upstreams}{closing_a}{peers} } ], [ 1 ], 'after a failure');
}

# A backend that answers once over each connection, does not say that it is the
# last answer, and closes the connection when another request has come.
sub serve_once ($listener) {
	my $select = IO::Select->new($listener);
	my %seen;

	while (my @ready = $select->can_read()) {
		for my $s (@ready) {
			if ($s == $listener) {
				my $new = $listener->accept();
				$select->add($new);
				next;
			}

			my $n = sysread $s, my $bytes, 65_536;
			if (!$n || $seen{$s}) {
				delete $seen{$s};
				$select->remove($s);
				close $s;
				next;
			}

			$seen{$s} = 1;
			syswrite $s, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n8086";
		}
	}
}

# How many servers take how many requests at once.
sub limited {
	$at{$_}->set(delay => 1) for 8083 .. 8085;

	for my $round (1, 2) {
		my $got = burst(uri => '/u/limited', n => 8, concurrency => 8);
		is_deeply($got->{by_body}, { 8083 => 2, 8084 => 1, 8085 => 5 },
			'as many as each pool may have, by all workers together');
	}

	$at{$_}->set(delay => 0) for 8083 .. 8085;
	is_deeply(spread('limited'), { 8083 => 30 }, 'and no more than that');
}

# Who answers three times, and with which session: "r" for one that is known.
sub answers ($name) {
	my @answers = map { http_get("/u/$name")->body() } 1 .. 3;
	my ($server) = split / /, $answers[0];
	return join ' ', $server, map { s/\A\Q$server\E //r } @answers;
}

sub sessions {
	is(answers('secure'), '127.0.0.1 . r r', 'a session is kept');
	act('secure_a', 'peer=0&down=');
	is(answers('secure'), '127.0.0.2 . r r', 'it is not for the other pool');
	act('secure_a', 'peer=0&up=');
	is(answers('secure'), '127.0.0.1 r r r', 'and kept meanwhile');
	act('secure_a', 'peer=0&down=');
	is(answers('secure'), '127.0.0.2 r r r', 'as is that of the other');
	act('secure_a', 'peer=0&up=');

	# TLS that fails is no connection that fails.
	my $r = http_get('/u/checked');
	is($r->status(), 502, 'no server is the one that is asked for');
	is($t->logical($r->header('X-Addr')), '127.0.0.1:8087, 127.0.0.2:8087',
		'in any pool');
	is($r->header('X-None'), '0', 'but both were reached');
}

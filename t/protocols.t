#!/usr/bin/env perl

# Tests for upstreams that are not reached by proxy_pass, or by a name that only
# the request tells.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use IO::Socket::IP;
use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()->has(qw/
	module http proxy fastcgi uwsgi scgi memcached grpc v2 upstream_zone
	upstream_keepalive upstream_least_conn
/);

my @KINDS = qw/fastcgi uwsgi scgi memcached grpc proxy/;

$t->plan(6 * 9 + 4);

# Ports of the three servers of each.
my %ports;
@ports{@KINDS} = map { [ 8100 + 10 * $_ .. 8102 + 10 * $_ ] } 0 .. $#KINDS;

my $UPSTREAMS = join '', map {
	"upstream u_$_ { zone u_$_ 64k; server 127.0.0.1:$ports{$_}[0]; "
		. "server 127.0.0.1:$ports{$_}[1]; "
		. ($_ eq 'fastcgi' ? 'keepalive 4; ' : '')
		. ($_ eq 'grpc' ? 'keepalive 4; ' : '') . "}\n"
} @KINDS;

# nginx speaks HTTP/2 itself.
$UPSTREAMS .= join '', map {
	"server { listen 127.0.0.1:$_ http2; location / { add_header grpc-status 0; "
		. "return 200 $_; } }\n"
} @{ $ports{grpc} };

$t->write_file_expand('nginx.conf', <<'CONF', UPSTREAMS => $UPSTREAMS);
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    %%UPSTREAMS%%

    server {
        listen 127.0.0.1:8080 reuseport;

        %%CONTROL%%

        location /fastcgi {
            fastcgi_param SCRIPT_FILENAME /x;
            fastcgi_pass u_fastcgi;
        }

        location /uwsgi {
            uwsgi_param REQUEST_METHOD $request_method;
            uwsgi_pass u_uwsgi;
        }

        location /scgi {
            scgi_param REQUEST_METHOD $request_method;
            scgi_pass u_scgi;
        }

        location /memcached {
            set $memcached_key key;
            memcached_pass u_memcached;
        }

        location /grpc {
            grpc_pass grpc://u_grpc;
        }

        location /proxy {
            proxy_pass http://$arg_name;
        }
    }
}
CONF

# What each kind of daemon says, and when it has read enough.
my %replies = (
	fastcgi => sub ($in, $tag) {
		my $out = "Status: 200 OK\r\nContent-Type: text/plain\r\n\r\n$tag";
		return pack('CCnnCx', 1, 6, 1, length $out, 0) . $out
			. pack('CCnnCx', 1, 3, 1, 8, 0) . "\0" x 8
			# an empty record of standard input
			if $in =~ /\x01\x05\x00\x01\x00\x00.\x00\z/s;
	},
	uwsgi => sub ($in, $tag) {
		return "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n$tag"
			if length $in >= 4 && length $in >= 4 + unpack 'xv', $in;
	},
	scgi => sub ($in, $tag) {
		return "Status: 200 OK\r\n\r\n$tag" if $in =~ /,\z/;
	},
	memcached => sub ($in, $tag) {
		return "VALUE key 0 4\r\n$tag\r\nEND\r\n" if $in eq "get key\r\n";
	},
);

for my $kind (sort keys %replies) {
	for my $port (@{ $ports{$kind} }) {
		my $listener = IO::Socket::IP->new(LocalHost => '127.0.0.1',
			LocalPort => port($port), Listen => 64, ReuseAddr => 1)
			or die "cannot listen: $!\n";
		$t->run_daemon(\&serve, $listener, $replies{$kind}, $port);
		close $listener;
	}
}

$t->backend("127.0.0.1:$_") for @{ $ports{proxy} };
$t->run();
$t->leak_keys('/status', 8080, pages => { map { ("u_$_" => 1) } @KINDS });

life($_) for @KINDS;
variable();

# One request for each connection, one connection at a time.
sub serve ($listener, $reply, $tag) {
	local $SIG{PIPE} = 'IGNORE';

	while (my $s = $listener->accept()) {
		my $in = '';
		my $out;

		while (!$out) {
			sysread $s, $in, 65_536, length $in or last;
			$out = $reply->($in, $tag);
		}

		syswrite $s, $out if $out;
		close $s;
	}
}

sub act ($kind, $args) {
	return control("/control?upstream=u_$kind&$args")->status();
}

# Who answers, of the first, second and third.
sub answers ($kind) {
	my $got = burst(uri => "/$kind?name=u_$kind", n => 24, concurrency => 4);
	my %place;
	@place{@{ $ports{$kind} }} = 1 .. 3;

	return join ' ', ($got->{failed} ? map { "$_ failed" } $got->{failed} : ()),
		sort map { $place{$_} // $_ } keys %{ $got->{by_body} };
}

sub life ($kind) {
	my @servers = map { "server=127.0.0.1:$_" } @{ $ports{$kind} };

	is(answers($kind), '1 2', "$kind: both");
	act($kind, "$servers[0]&down=");
	is(answers($kind), '2', "$kind: one is down");
	act($kind, "$servers[0]&up=");
	act($kind, "$servers[1]&drain=");
	is(answers($kind), '1', "$kind: the other one is drained");
	act($kind, "$servers[1]&up=");
	is(answers($kind), '1 2', "$kind: both again");

	act($kind, "add=&$servers[2]");
	is(answers($kind), '1 2 3', "$kind: one more");
	act($kind, "remove=&$servers[0]");
	is(answers($kind), '2 3', "$kind: one less");
	act($kind, "id=1&$servers[0]");
	is(answers($kind), '1 3', "$kind: one moves");
	act($kind, "remove=&$_") for $servers[0], $servers[2];
	is(http_get("/$kind?name=u_$kind")->status(), 502, "$kind: nobody");
	act($kind, "add=&$servers[1]");
	is(answers($kind), '2', "$kind: one");
}

# A name that is an upstream is that upstream; an address is nobody's.
sub variable {
	my $port = port($ports{proxy}[2]);

	is(http_get("/proxy?name=127.0.0.1:$port")->body(), $ports{proxy}[2],
		'variable: an address');
	is(http_get('/proxy?name=u_proxy')->status(), 200, 'variable: an upstream');
	is(get_json('/status')->{upstreams}{"127.0.0.1:$port"}, undef,
		'variable: an address is no upstream');
	is(act('proxy', 'server=127.0.0.1:8151&down='), 200, 'variable: down');
}

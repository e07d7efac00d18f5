#!/usr/bin/env perl

# Tests for an upstream with a balancer of another module: it is left alone, and
# the status says so.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use File::Basename qw/dirname/;
use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()->has(qw/module http proxy upstream_zone/);

# Debian's libnginx-mod-http-upstream-fair, where that nginx would look for it,
# or beside the module.
my $FILE = 'ngx_http_upstream_fair_module.so';
my ($where) = $t->binary()->configure_arguments() =~ /--modules-path='?([^\s']+)/;
my ($fair) = grep { -f } map { "$_/$FILE" } grep { defined } $where,
	dirname($ENV{TEST_NGINX_MODULE});

plan(skip_all => "$FILE not found") unless $fair;

$t->plan(21);

# Without a zone: nginx itself takes what this balancer keeps for its own list of
# peers when there is one, and does not start.
my $CONF = <<'CONF';
load_module %%FAIR%%;
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    upstream fair {
        fair;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        server 127.0.0.1:8083 down;
    }

    upstream kept {
        fair;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        keepalive 4;
    }

    upstream own {
        zone own 64k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
    }

    server {
        listen 127.0.0.1:8080;

        %%CONTROL%%

        %%BY_NAME%%
    }
}
CONF

$t->write_file_expand('nginx.conf', $CONF, FAIR => $fair);
$t->backend("127.0.0.1:$_") for 8081, 8082;
$t->run();
$t->leak_keys('/status', 8080);

left_alone($_) for qw/fair kept/;
beside();
last_loaded();

sub upstream ($name) {
	return get_json("/status?upstream=$name")->{upstreams}{$name};
}

sub answers ($name) {
	my $got = burst(uri => "/u/$name", n => 24, concurrency => 6);
	return join ' ', ($got->{failed} ? 'failed' : ()),
		sort keys %{ $got->{by_body} };
}

sub left_alone ($name) {
	my $all = upstream($name);

	is_deeply([ $all->{dynamic}, $all->{method} ], [ JSON::PP::false, undef ],
		"$name: static");
	is($all->{reason}, 'unknown load balancing method', "$name: with the reason");
	is(answers($name), '8081 8082', "$name: serves");

	for my $args ('server=127.0.0.1:8081&down=', 'peer=0&weight=2',
			'add=&server=127.0.0.1:8084') {
		my $r = control("/control?upstream=$name&$args");
		is($r->told(),
			'501 upstream is static: unknown load balancing method', "$name: $args");
	}

	is(answers($name), '8081 8082', "$name: serves as before");
	like(control("/control?upstream=$name")->body(),
		qr/\Aserver 127.0.0.1:8081 addr=127.0.0.1:8081;\n/, "$name: is listed");
}

sub beside {
	is(control('/control?upstream=own&peer=0&down=')->status(), 200,
		'own: is changed');
	is(answers('own'), '8082', 'own: as it says');
	control('/control?upstream=own&peer=0&up=');
}

sub last_loaded {
	my $conf = $CONF =~ s/\A(.*\n)(.*\n)/$2$1/r;
	$t->write_file_expand('nginx.conf', $conf, FAIR => $fair);
	ok($t->reload(old_gone => 1), 'loaded after the module');
	$t->leak_baseline();
	is(upstream('fair')->{dynamic}, JSON::PP::false, 'static again');
	is(answers('fair'), '8081 8082', 'serves again');
}

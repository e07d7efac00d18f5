#!/usr/bin/env perl

# Tests for upstream_auto_zone, which gives an upstream a zone of its own name.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()->has(qw/
	module http proxy upstream_zone upstream_least_conn upstream_hash
	upstream_keepalive upstream_random
/)->plan(50);

my $CONF = <<'CONF';
%%TEST_GLOBALS%%
worker_processes 3;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    upstream first {
        upstream_auto_zone 64k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
    }

    upstream last {
        least_conn;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        keepalive 4;
        upstream_auto_zone 128k;
    }

    upstream ring {
        server 127.0.0.1:8081;
        hash $arg_key consistent;
        upstream_auto_zone 64k;
        server 127.0.0.1:8082;
    }

    upstream random.example.com {
        random two;
        upstream_auto_zone 64k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
    }

    upstream named {
        zone other 64k;
        server 127.0.0.1:8081;
    }

    upstream plain {
        server 127.0.0.1:8081;
    }

    upstream text {
        %%TEXT%%
        server 127.0.0.1:8081;
        %%TAIL%%
    }

    %%HTTP%%

    server {
        listen 127.0.0.1:8080 reuseport;

        %%CONTROL%%

        location ~ ^/u/(?<name>[\w.]+)$ {
            proxy_pass http://$name;
        }
    }
}
CONF

my %CONF = (TEXT => '', TAIL => '', HTTP => '');
my @NAMES = qw/first last ring random.example.com/;

$t->write_file_expand('nginx.conf', $CONF, %CONF);
$t->backend("127.0.0.1:$_") for 8081 .. 8083;
$t->run();
$t->leak_keys('/status', 8080, pages => { map { $_ => 1 } @NAMES });

directive();
status();
shared($_) for @NAMES;
reloaded();

sub upstream ($name) {
	return get_json("/status?upstream=$name")->{upstreams}{$name};
}

sub act ($name, $args) {
	return control("/control?upstream=$name&$args")->status();
}

sub answers ($name) {
	my $got = burst(uri => sub ($i) { "/u/$name?key=$i" }, n => 45,
		concurrency => 9);
	return join ' ', ($got->{failed} ? 'failed' : ()),
		sort keys %{ $got->{by_body} };
}

sub directive {
	my $auto = 'upstream_auto_zone 64k;';
	my @rows = (
		[ { TEXT => $auto }, 0, '' ],
		[ { TAIL => $auto }, 0, '' ],
		[ { TEXT => "$auto $auto" }, 1, '"upstream_auto_zone" directive is duplicate' ],
		[ { TEXT => "zone a 64k; $auto" }, 1,
			'is duplicate, the upstream has a "zone"' ],
		[ { TEXT => $auto, TAIL => 'zone a 64k;' }, 1, 'duplicate' ],
		# One and the same.
		[ { TEXT => $auto, TAIL => 'zone text 64k;' }, 0, '' ],
		# The size is nginx's to judge.
		[ { TEXT => 'upstream_auto_zone 4k;' }, 1, 'zone "text" is too small' ],
		[ { TEXT => 'upstream_auto_zone x;' }, 1, 'invalid zone size "x"' ],
		[ { TEXT => 'upstream_auto_zone;' }, 1, 'invalid number of arguments' ],
		[ { TEXT => 'upstream_auto_zone a 64k;' }, 1,
			'invalid number of arguments' ],
		[ { HTTP => $auto }, 1, 'is not allowed here' ],
		# Its name is that of the upstream, whoever has it already.
		[ { TEXT => $auto, HTTP => 'upstream taken { zone text 128k; '
			. 'server 127.0.0.1:8081; }' }, 1, 'conflicts with' ],
		[ { TEXT => $auto, HTTP => 'upstream shares { zone text; '
			. 'server 127.0.0.1:8081; }' }, 0, '' ],
	);

	for my $row (@rows) {
		my ($holes, $wanted, $error) = @$row;
		my ($code, $out) = $t->test_config($CONF, %CONF, %$holes);
		like("$code $out", qr/\A$wanted .*\Q$error\E/s,
			join ' .. ', map { $holes->{$_} } reverse sort keys %$holes);
	}
}

sub status {
	my $all = get_json('/status')->{upstreams};
	is_deeply([ map { $_->{zone} } @$all{@NAMES} ], \@NAMES,
		'zones have the names of the upstreams');
	is($all->{last}{zone_memory}{size}, 128 * 1024, 'of the size that was said');
	is_deeply([ map { $all->{$_}{dynamic} ? 1 : 0 } @NAMES, 'named', 'plain' ],
		[ 1, 1, 1, 1, 1, 0 ], 'which can be changed');
	is_deeply([ map { $all->{$_}{method} } @NAMES ],
		[ 'round_robin', 'least_conn', 'hash consistent', 'random' ],
		'methods are as they were');
}

# All workers have the same peers.
sub shared ($name) {
	is(answers($name), '8081 8082', "$name: all serve");
	is(act($name, 'server=127.0.0.1:8081&down='), 200, "$name: down");
	is(answers($name), '8082', "$name: in every worker");
	act($name, 'server=127.0.0.1:8081&up=');
	is(answers($name), '8081 8082', "$name: up");

	is(act($name, 'add=&server=127.0.0.1:8083'), 200, "$name: one more");
	is(answers($name), '8081 8082 8083', "$name: which serves");
	act($name, 'remove=&server=127.0.0.1:8083');
	is(answers($name), '8081 8082', "$name: and leaves");
}

sub reloaded {
	act('first', 'server=127.0.0.1:8081&down=');
	$t->write_file_expand('nginx.conf', $CONF, %CONF,
		TEXT => 'upstream_auto_zone 64k;');
	ok($t->reload(old_gone => 1), 'reload');
	$t->leak_baseline();
	is(upstream('text')->{dynamic}, JSON::PP::true, 'one more has a zone');
	is(answers('first'), '8081 8082', 'the others as the file says');

	$t->write_file_expand('nginx.conf', $CONF, %CONF, TEXT => 'zone text 64k;');
	ok($t->reload(old_gone => 1), 'reload with a zone of the same name');
	$t->leak_baseline();
	is(act('text', 'peer=0&down='), 200, 'which is as good');
}

#!/usr/bin/env perl

# Tests for the page of upstream_status as it is served: when it is, its
# headers, that the policy in them allows what it holds and nothing else, and
# the place of the control location in it.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Digest::SHA qw/sha256_base64/;
use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()
	->has(qw/module http upstream_zone/)
	->plan(43);

$t->write_file_expand('nginx.conf', <<'CONF');
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    upstream u {
        zone u 64k;
        server 127.0.0.1:8081;
    }

    server {
        listen 127.0.0.1:8080;

        location /status {
            upstream_status;
        }

        location /with {
            upstream_status control=/control?a=b&c;
        }

        location /hostile {
            upstream_status 'control=/"><script>alert(1)</script><p a=\'&amp;';
        }

        location /control {
            upstream_control;
        }
    }
}
CONF

my $BROWSER = 'text/html,application/xhtml+xml,application/xml;q=0.9,'
	. 'image/avif,image/webp,*/*;q=0.8';

$t->run();
$t->leak_keys('/status', 8080);

my $page = http_get('/status?format=html');
is($page->status(), 200, 'the page');

chosen();
headers();
policy();
self_contained();
control_uri();
refused();
reloaded();

sub type ($uri, $accept) {
	return http_get($uri, headers => { Accept => $accept })
		->header('Content-Type');
}

sub chosen {
	my ($html, $json) = ('text/html; charset=utf-8', 'application/json');
	my @rows = (
		[ $BROWSER, '', $html ],
		[ 'text/html', '', $html ],
		[ 'application/json;q=0.9, text/html', '', $html ],
		[ '*/*', '', $json ],
		[ undef, '', $json ],
		[ 'application/json, text/html', '', $json ],
		[ 'text/html;q=0.5, */*', '', $json ],
		[ $BROWSER, 'format=json', $json ],
		[ 'application/json', 'format=html', $html ],
		[ $BROWSER, 'upstream=u', $html ],
	);

	for my $row (@rows) {
		my ($accept, $args, $type) = @$row;
		is(type("/status?$args", $accept), $type,
			'Accept: ' . ($accept // 'none') . ", \"$args\"");
	}

	# A control reply is read by programs, and is text as ever.
	is(type('/control?upstream=u', $BROWSER), 'text/plain',
		'control answers a browser as before');
}

sub headers {
	is($page->header('Cache-Control'), 'no-store', 'is not cached');
	is($page->header('X-Content-Type-Options'), 'nosniff', 'is not guessed at');
	is($page->header('Referrer-Policy'), 'same-origin', 'tells no other site');
	is($page->header('Content-Length'), length $page->body(), 'length');
	is(http_head('/status?format=html')->header('Content-Length'),
		length $page->body(), 'the same by HEAD');
}

# Hashes of the blocks that a tag's occurrences enclose, in order.
sub hashes ($tag) {
	return map { "'sha256-" . pad(sha256_base64($_)) . "'" }
		$page->body() =~ m{<$tag>(.*?)</$tag>}sg;
}

sub pad ($base64) { return $base64 . '=' x (-length($base64) % 4) }

sub policy {
	my %policy = map { split / /, $_, 2 } split /; /,
		$page->header('Content-Security-Policy');

	is($policy{$_}, "'none'", "policy: $_ 'none'") for qw/
		default-src base-uri form-action frame-ancestors trusted-types
	/;
	is($policy{'connect-src'}, "'self'", "policy: connect-src 'self'");
	is($policy{'require-trusted-types-for'}, "'script'",
		'policy: no text becomes a script');
	is(keys %policy, 9, 'policy: nothing else');

	my @styles = hashes('style');
	my @scripts = hashes('script');
	cmp_ok(@styles, '>', 0, 'there is a style');
	cmp_ok(@scripts, '>', 0, 'there are scripts');
	is($policy{'style-src'}, "@styles", 'policy: the style and no other');
	is($policy{'script-src'}, "@scripts", 'policy: the scripts and no others');
}

sub self_contained {
	my $markup = $page->body()
		=~ s{<(style|script)>.*?</\1>}{}sgr;

	unlike($page->body(), qr{https?://}, 'names no other site');
	unlike($markup, qr/\b(?:src|href|action|style)=/i, 'loads nothing');
	unlike($markup, qr/\bon\w+=/i, 'no handlers in the markup');
	unlike($page->body(), qr/innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b/,
		'data gets into it as text only');
	is(() = $page->body() =~ /<script\b/g, hashes('script'),
		'no other scripts');
}

sub control_uri {
	my $with = http_get('/with?format=html')->body();
	my $hostile = http_get('/hostile?format=html')->body();

	like($page->body(), qr/<html lang="en" data-control="">/, 'no control');
	like($with, qr/<html lang="en" data-control="\/control\?a=b&amp;c">/,
		'control=');
	like($hostile, qr{ data-control="/&quot;&gt;&lt;script&gt;alert\(1\)&lt;/script&gt;&lt;p a=&#39;&amp;amp;">},
		'a hostile one stays in its attribute');
	is($hostile =~ s/data-control="[^"]*"/data-control=""/r, $page->body(),
		'and nothing else differs');
	is(http_get('/hostile?format=html')->header('Content-Security-Policy'),
		$page->header('Content-Security-Policy'), 'nor does the policy');
}

sub refused {
	my $r = http_get('/status?format=html&upstream=nope');
	is($r->status(), 404, 'an unknown upstream');
	is($r->header('Content-Type'), 'text/plain', 'in plain words');
	is(http_post('/status?format=html', '')->status(), 405, 'POST');
}

sub reloaded {
	$t->write_file('nginx.conf', $t->read_file('nginx.conf')
		=~ s{control=/control\?a=b&c}{control=/elsewhere}r);
	$t->reload();
	like(http_get('/with?format=html')->body(), qr{data-control="/elsewhere"},
		'a reload may name another location');
}

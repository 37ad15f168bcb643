# Sekisho. "make run" to see it work, "make check" to test it, "make help" for the rest.
#
# B is where everything goes; V selects the variant: empty is the product, "test" adds the shared test clock, "san" adds the
# address and undefined-behaviour sanitizers to that.
V      ?=
B      ?= build$(V:%=/%)
CC     ?= gcc
PREFIX ?= /usr/local

PKGS     = libevent libevent_pthreads openssl libsasl2 lmdb yaml-0.1 jansson libseccomp libxxhash
WARN     = -Wall -Wextra -Wshadow -Wconversion -Wno-missing-field-initializers -Werror
HARDEN   = -fstack-protector-strong -fstack-clash-protection -fcf-protection -fPIE
VARIANT  = $(if $(V),-DSEKISHO_TEST -Og) \
	   $(if $(filter san,$(V)),-fsanitize=address$(comma)undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
FORTIFY  = $(if $(filter san,$(V)),,-O2 -D_FORTIFY_SOURCE=2)
comma    = ,
CPPFLAGS = -D_GNU_SOURCE -I. -MMD -MP $(if $(wildcard /usr/bin/pkg-config),$(shell pkg-config --cflags lmdb jansson libxxhash 2>/dev/null))
CFLAGS   = -std=gnu11 -g $(FORTIFY) $(WARN) $(HARDEN) $(VARIANT)
LDFLAGS  = -pie -Wl,-z,relro,-z,now -Wl,--as-needed $(filter -fsanitize%,$(VARIANT))

# Left to right: a folder includes only what stands left of it.
LAYERS   = core smtp auth ratelimit keys queue relay
LIBS     = $(patsubst %,$(B)/lib%.a,relay queue keys ratelimit auth smtp core)
LINK     = -Wl,--start-group $(LIBS) -Wl,--end-group \
	   -levent_core -levent_pthreads -lssl -lcrypto -llmdb -lxxhash -lyaml -lseccomp -lpthread
PROGRAMS = sekishod sekisho-msa sekisho-auth sekisho-queue sekisho-relay sekisho-keys sekisho-admin sekishoctl

# The sources of each program that are not part of its folder's archive.
MAIN_sekishod      = $(wildcard sekishod/*.c)
MAIN_sekisho-msa   = $(wildcard msa/*.c)
MAIN_sekisho-auth  = auth/main.c
MAIN_sekisho-queue = queue/main.c
MAIN_sekisho-relay = relay/main.c
MAIN_sekisho-keys  = keys/main.c
MAIN_sekisho-admin = $(filter-out admin/sekishoctl.c,$(wildcard admin/*.c))
MAIN_sekishoctl    = admin/sekishoctl.c
EXTRA_sekisho-auth  = -lsasl2
EXTRA_sekisho-admin = -ljansson
EXTRA_sekishoctl    = -ljansson

all: $(PROGRAMS:%=$(B)/%)

objects = $(patsubst %.c,$(B)/obj/%.o,$(1))

$(B)/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

define archive
$(B)/lib$(1).a: $(call objects,$(filter-out $(1)/main.c,$(wildcard $(1)/*.c)))
	@rm -f $$@
	ar rcs $$@ $$^
endef
$(foreach d,$(LAYERS),$(eval $(call archive,$(d))))

define program
$(B)/$(1): $(call objects,$(MAIN_$(1))) $(LIBS)
	$(CC) $(LDFLAGS) -o $$@ $(call objects,$(MAIN_$(1))) $(LINK) $(EXTRA_$(1))
endef
$(foreach p,$(PROGRAMS),$(eval $(call program,$(p))))

UNIT = $(patsubst t/unit/%.c,$(B)/unit/%.t,$(wildcard t/unit/*.c))
$(B)/unit/%.t: $(B)/obj/t/unit/%.o $(LIBS)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $< $(LINK) -lcmocka -lsasl2
unit: $(UNIT)

# What people type. ----------------------------------------------------------------------------------------------

run: ## build, start everything on 127.0.0.1, send a message, show what happened
	@sh t/packages.sh build run
	@$(MAKE) --no-print-directory -j2 all
	@sh t/run.sh

check: ## install what tests need, build, run every test
	@sh t/packages.sh build run test
	@$(MAKE) --no-print-directory layers
	@$(MAKE) --no-print-directory -j2 all
	@$(MAKE) --no-print-directory -j2 V=test all unit
	@prove -e '' build/test/unit/ --ext .t
	@prove t/e2e

san: ## the unit tests and the whole-system tests under the address and undefined-behaviour sanitizers
	@sh t/packages.sh build run test
	@$(MAKE) --no-print-directory -j2 V=san all unit
	@prove -e '' build/san/unit/ --ext .t
	@SEKISHO_BUILD=build/san prove t/e2e

layers: ## prove that the folders include only what stands left of them
	@sh t/layers.sh

help:
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 20

install: all ## install programs, sample configuration and manual below PREFIX
	install -d $(DESTDIR)$(PREFIX)/sbin $(DESTDIR)$(PREFIX)/bin $(DESTDIR)/etc/sekisho
	install $(filter-out $(B)/sekishoctl,$(PROGRAMS:%=$(B)/%)) $(DESTDIR)$(PREFIX)/sbin
	install $(B)/sekishoctl $(DESTDIR)$(PREFIX)/bin
	test -e $(DESTDIR)/etc/sekisho/sekisho.yaml || install -m 644 etc/sekisho.yaml $(DESTDIR)/etc/sekisho

clean: ## remove what was built
	rm -rf build

.PHONY: all unit run check san layers help install clean
.SECONDARY:
-include $(shell find $(B)/obj -name '*.d' 2>/dev/null)
